/**
 * `deno task sample <run> [prompt=…]`
 *
 * @module
 */
import { exitCodes, runCommand, splitArguments } from "../command.ts";
import { resolveConfig } from "../config.ts";
import { loadTokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import { modelParameters } from "../model/parameters.ts";
import { languageModel } from "../model/transformer.ts";
import { openDevice } from "../open_device.ts";
import { Rng } from "../rng.ts";
import { checkpointView, latestCheckpoint, loadCheckpoint } from "../train/checkpoint.ts";
import { sample } from "./sample.ts";

const HELP = `usage: deno task sample <run folder> [prompt=...] [key=value ...]

  deno task sample runs/quickstart_001 prompt="Call me " sampleTokens=400 temperature=0.7

keys: prompt, sampleTokens, temperature, seed, device`;

async function main(args: string[]): Promise<number> {
  const { flags, pairs, words } = splitArguments(args, []);
  if (flags.has("--help") || !words.length && !pairs.length) {
    console.log(HELP);
    return exitCodes.done;
  }
  if (words.length !== 1) throw new UserError("Cannot sample: give one run folder; see --help");
  const checkpoint = await loadCheckpoint(await latestCheckpoint(words[0]), { optimizer: false });
  const allowed = ["samplePrompt", "sampleTokens", "temperature", "seed", "device"];
  const overrides = pairs.map((pair) => pair.replace(/^prompt=/, "samplePrompt="));
  for (const pair of overrides) {
    const key = pair.slice(0, pair.indexOf("="));
    if (allowed.includes(key)) continue;
    throw new UserError(`Cannot set ${key}: sampling takes prompt, ${allowed.slice(1).join(", ")}`);
  }
  const config = { ...resolveConfig(checkpoint.config, overrides), batchSize: 1 };
  if (!checkpoint.tokenizer) {
    throw new UserError(`Cannot sample ${words[0]}: data=${config.data} has no text`);
  }
  const tokenizer = loadTokenizer(checkpoint.tokenizer as object);
  const note = (line: string) => console.error(line);
  using device = await openDevice(config.device, { note });
  using engine = await device.open({
    parameters: modelParameters(config),
    initial: checkpoint.state.parameters,
    loss: languageModel(config, { stage: checkpointView(checkpoint) }),
    batchSize: 1,
    seqLen: config.seqLen,
    trained: [],
  });
  const prompt = tokenizer.encode(config.samplePrompt);
  const tokens = await sample(engine, {
    prompt: prompt.length ? prompt : [0],
    count: config.sampleTokens,
    temperature: config.temperature,
    seqLen: config.seqLen,
    rng: new Rng(config.seed, "sample"),
  });
  console.log(config.samplePrompt + tokenizer.decode(tokens));
  return exitCodes.done;
}

if (import.meta.main) await runCommand(main);
