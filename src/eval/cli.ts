/**
 * `deno task eval <run or Hugging Face folder> [key=value …] [--json]`
 *
 * @module
 */
import { exitCodes, runCommand, splitArguments } from "../command.ts";
import { type ConfigInput, type ConfigKey, parseOverrides } from "../config.ts";
import { UserError } from "../errors.ts";
import { suggest } from "../suggest.ts";
import { evaluateModel, stageOf } from "./evaluate_model.ts";
import { loadModel, type SavedModel } from "./load_model.ts";
import { reportTables } from "./report_tables.ts";

const HELP = `usage: deno task eval <folder> [key=value ...] [--json]

  deno task eval runs/quickstart_001
  deno task eval runs/quickstart_001 seqLen=512 evalBatches=16    longer than it was trained
  deno task eval runs/quickstart_001 indexTopk=16 --json          other k than it was trained
  deno task eval models/deepseek data='texts/*.txt'

The folder is a run (its latest checkpoint counts), a checkpoint of one, or a model in Hugging
Face's layout: config.json, model.safetensors, tokenizer.json; that needs data=. Of a text, the
last tenth is used. Prints validation loss, also by position; of generated tasks the share of
right answers, also by distance; of models with an indexer its measurements and the loss under
other selectors. --json prints one object.

keys: device, data, evalBatches, batchSize, seqLen, indexTopk, seed`;

/** What may be changed: none of it touches the weights. */
const changeable: readonly ConfigKey[] = [
  "device",
  "data",
  "evalBatches",
  "batchSize",
  "seqLen",
  "indexTopk",
  "seed",
];

async function main(args: string[]): Promise<number> {
  const { flags, pairs, words } = splitArguments(args, ["--json"]);
  if (flags.has("--help") || !args.length) {
    console.log(HELP);
    return exitCodes.done;
  }
  const typed = parseKeys(pairs);
  if (words.length !== 1) {
    throw new UserError(
      `Cannot evaluate ${words.length ? words.join(" and ") : "nothing"}: ` +
        "give one run or model folder; see --help",
    );
  }
  const model = await loadModel(words[0], typed);
  const report = await evaluateModel(model, { note: (line) => console.error(line) });
  if (flags.has("--json")) {
    console.log(JSON.stringify(report));
  } else {
    console.log(describeModel(model));
    console.log(report.device);
    const { batchSize, seqLen } = model.config;
    console.log(`${report.data}: ${report.batches} batches of ${batchSize} x ${seqLen} tokens\n`);
    console.log(reportTables(report));
  }
  return exitCodes.done;
}

function parseKeys(pairs: readonly string[]): ConfigInput {
  const names: readonly string[] = changeable;
  for (const pair of pairs) {
    const key = pair.slice(0, pair.indexOf("="));
    if (names.includes(key)) continue;
    const near = suggest(key, names);
    throw new UserError(
      `Cannot set "${key}": ` + (near ? `did you mean ${near}?` : `eval takes ${names.join(", ")}`),
    );
  }
  return parseOverrides(pairs);
}

function describeModel(model: SavedModel): string {
  const { folder, step, config } = model;
  const stage = stageOf(model);
  const attention = stage.attention === "sparse"
    ? `sparse attention to ${Math.min(stage.indexTopk, config.seqLen)} latents`
    : `dense attention`;
  const since = step === null ? "" : `, step ${step} (stage ${stage.name})`;
  return `${folder}${since}: ${config.attention}, ${attention}`;
}

if (import.meta.main) await runCommand(main);
