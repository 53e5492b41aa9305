/**
 * `deno task eval <run or Hugging Face folder> [key=value …] [--json]`
 *
 * @module
 */
import { exitCodes, oneWord, requireKeys, runCommand, splitArguments } from "./command.ts";
import { type ConfigKey, parseOverrides } from "../config/config.ts";
import { stageAt } from "../config/stages.ts";
import { evaluateModel } from "../eval/evaluate_model.ts";
import type { WholeOptions } from "../eval/evaluate_whole.ts";
import { UserError } from "../errors.ts";
import { saveDensity } from "../eval/density_file.ts";
import { loadModel, type SavedModel } from "../runs/load_model.ts";
import { reportTables } from "../eval/report_tables.ts";

const HELP =
  `usage: deno task eval <folder> [key=value ...] [--whole] [--selectors] [--density] [--json]

  deno task eval runs/quickstart_001
  deno task eval runs/quickstart_001 seqLen=512 evalBatches=16    longer than it was trained
  deno task eval runs/quickstart_001 indexTopk=16 --json          other k than it was trained
  deno task eval runs/quickstart_001 --selectors    all selectors within the same bytes read
  deno task eval runs/quickstart_001 --density      how much the latents hold, layer by layer
  deno task eval runs/quickstart_001 --whole tokenLosses=losses.safetensors   the whole split
  deno task eval runs/quickstart_001 longTokens=moby_dick.safetensors   where far context matters
  deno task eval models/deepseek data='texts/*.txt'

The folder is a run (its latest checkpoint counts), a checkpoint of one, or a model in Hugging
Face's layout: config.json, model.safetensors, tokenizer.json; that needs data=. Of a text, the
last tenth is used, of a corpus of documents whole ones. Prints validation loss, also by position;
of generated tasks the share of right answers, also by distance, and of those whose gold position is
selected; of models with an indexer its measurements and the loss under other selectors. --json
prints one object.

--selectors also compares all selectors on these weights, each with as many keys as it may read in
the bytes that the indexer takes for a quarter, half, one, two and four times the model's k.
--density also measures the latents of each layer: their ranks, what attention's output loses where
they are projected or kept in few bits, what a linear probe reads off them of the tokens before, and
what one selection for all heads costs; it takes minutes in software, and the run's next report
shows it.

--whole also evaluates every token of the validation split, document by document; tokenLosses=<file>
writes their losses (float32, with ids, contexts and documents, as safetensors). longTokens=<file>
tells the mean loss over tokens whose far context matters (LongPPL), which one dense model chooses
for all: those that it predicts within 2 nats, but 2 nats worse from the last 64 bytes alone. A list
that is not there is made with the model given, at its seqLen; one of another text is refused. Both
keys imply --whole.

keys: device, data, otherData, evalBatches, batchSize, seqLen, indexTopk, seed, tokenLosses, longTokens`;

/** What may be changed: none of it touches the weights. */
const changeable: readonly ConfigKey[] = [
  "device",
  "data",
  "otherData",
  "evalBatches",
  "batchSize",
  "seqLen",
  "indexTopk",
  "seed",
];

/** The keys that are the command's own. */
const FILE_KEYS: readonly string[] = ["tokenLosses", "longTokens"];

function keyOf(pair: string): string {
  return pair.slice(0, pair.indexOf("="));
}

/** Files for what is told of each token. */
function wholeOptions(pairs: readonly string[]): WholeOptions {
  const files = pairs.map((pair) => [keyOf(pair), pair.slice(pair.indexOf("=") + 1)]);
  for (const [key, file] of files) {
    if (!file) throw new UserError(`Cannot set ${key} to nothing: name a file`);
  }
  return Object.fromEntries(files);
}

async function main(args: string[]): Promise<number> {
  const { flags, pairs, words } = splitArguments(args, [
    "--json",
    "--selectors",
    "--density",
    "--whole",
  ]);
  if (flags.has("--help")) {
    console.log(HELP);
    return exitCodes.done;
  }
  requireKeys("eval", pairs, [...changeable, ...FILE_KEYS]);
  const files = pairs.filter((pair) => FILE_KEYS.includes(keyOf(pair)));
  const keys = pairs.filter((pair) => !files.includes(pair));
  const wanted = { verb: "evaluate", what: "one run or model folder", help: HELP };
  const model = await loadModel(oneWord(words, wanted), parseOverrides(keys));
  const report = await evaluateModel(model, {
    note: (line) => console.error(line),
    selectors: flags.has("--selectors"),
    density: flags.has("--density"),
    ...(flags.has("--whole") || files.length ? { whole: wholeOptions(files) } : {}),
  });
  const { density, step, data } = report;
  if (density && step !== null) saveDensity(model.folder, { step, data, ...density });
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

function describeModel(model: SavedModel): string {
  const { folder, step, config } = model;
  const stage = stageAt(config.stages, step ?? 0);
  const attention = stage.attention === "sparse"
    ? `sparse attention to ${Math.min(stage.indexTopk, config.seqLen)} latents`
    : `dense attention`;
  const since = step === null ? "" : `, step ${step} (stage ${stage.name})`;
  return `${folder}${since}: ${config.attention}, ${attention}`;
}

if (import.meta.main) await runCommand(main);
