/**
 * `deno task sample <run or model folder> [prompt=…]`
 *
 * @module
 */
import { exitCodes, oneWord, requireKeys, runCommand, splitArguments } from "./command.ts";
import { parseOverrides } from "../config/config.ts";
import { isTask } from "../config/checks.ts";
import { requireRoom, roomOf } from "../costs/room.ts";
import { loadTokenizer } from "../data/tokenizer/tokenizers.ts";
import { UserError } from "../errors.ts";
import { loadModel } from "../runs/load_model.ts";
import { decodingModel } from "../model/decode.ts";
import { modelParameters } from "../model/parameters.ts";
import { languageModel } from "../model/transformer.ts";
import { openDevice } from "../open_device.ts";
import { Rng } from "../rng.ts";
import { checkpointView } from "../runs/checkpoint.ts";
import { isCausal, sample } from "../infer/sample.ts";

const HELP = `usage: deno task sample <folder> [prompt=...] [key=value ...]

  deno task sample runs/quickstart_001 prompt="Call me " sampleTokens=400 temperature=0.7

The folder is a run (its latest checkpoint counts), a checkpoint of one, or a model in Hugging
Face's layout: config.json, model.safetensors, tokenizer.json.

keys: prompt, sampleTokens, temperature, seed, device`;

const keys = ["prompt", "sampleTokens", "temperature", "seed", "device"];

async function main(args: string[]): Promise<number> {
  const { flags, pairs, words } = splitArguments(args, []);
  if (flags.has("--help")) {
    console.log(HELP);
    return exitCodes.done;
  }
  requireKeys("sample", pairs, keys);
  const folder = oneWord(words, { verb: "sample", what: "one run or model folder", help: HELP });
  const typed = parseOverrides(pairs.map((pair) => pair.replace(/^prompt=/, "samplePrompt=")));
  const model = await loadModel(folder, { ...typed, batchSize: 1 }, "sample");
  const { config, step } = model;
  if (!isCausal(config)) {
    throw new UserError(
      `Cannot sample ${folder}: heads of attention=mosa with mosaCausal=false pick among all tokens ` +
        "of a sequence, later ones too, so it cannot generate them one by one; use another attention",
    );
  }
  if (!model.tokenizer) {
    throw new UserError(
      `Cannot sample ${folder}: ` +
        (step !== null && isTask(config.data)
          ? `data=${config.data} has no text`
          : "tokenizer.json is missing"),
    );
  }
  const tokenizer = loadTokenizer(model.tokenizer, model.tokenizerFile);
  if (tokenizer.vocabSize > config.vocabSize) {
    throw new UserError(
      `Cannot sample ${folder}: tokenizer.json has ${tokenizer.vocabSize} tokens, the model only ` +
        `${config.vocabSize}; use the tokenizer that it was trained with`,
    );
  }
  const note = (line: string) => console.error(line);
  const stage = checkpointView({ config, step: step ?? 0 });
  using device = await openDevice(config.device, { note });
  requireRoom({ ...config, evalBatches: 1 }, "evaluate", roomOf(device));
  using engine = await device.open({
    parameters: modelParameters(config),
    initial: model.parameters,
    loss: languageModel(config, { stage }),
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
    vocabSize: tokenizer.vocabSize,
    decoding: decodingModel(config, stage),
    rng: new Rng(config.seed, "sample"),
  });
  console.log(config.samplePrompt + tokenizer.decode(tokens));
  return exitCodes.done;
}

if (import.meta.main) await runCommand(main);
