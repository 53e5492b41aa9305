/**
 * `deno task bench decode`: a new token at contexts of several lengths, on caches and by whole
 * windows, with dense and with sparse attention.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import { cachePerToken } from "../costs/costs.ts";
import type { DecodeFunction, Engine } from "../engine.ts";
import { UserError } from "../errors.ts";
import { decodingModel } from "../model/decode.ts";
import { requireRoom, roomOf } from "../costs/room.ts";
import { initialParameters, modelParameters } from "../model/parameters.ts";
import { viewOf } from "../model/stage_view.ts";
import { languageModel } from "../model/transformer.ts";
import type { Device } from "../open_device.ts";
import { Rng } from "../rng.ts";
import type { Stage } from "../config/stage_fields.ts";
import {
  adapterOf,
  type BenchOptions,
  type BenchResult,
  isSoftware,
  summarizeTimes,
  warmUp,
} from "./result.ts";
import { benchConfig, spanNamed } from "./step.ts";

/** Timed tokens, those just before a context is full. */
const TOKENS = 16;
/** Timed windows: they cost more, and the same whatever the context. */
const WINDOWS = 5;

/** Times tokens, each from its number on the host to the logits that follow it there. */
export async function* decodeSuite(
  device: Device,
  { presets, stages, contexts, steps, overrides }: BenchOptions,
): AsyncGenerator<BenchResult> {
  const usual = isSoftware(device) ? ["nano", "tiny"] : ["tiny", "small", "base", "long"];
  for (const preset of presets.length ? presets : usual) {
    const config = benchConfig(preset, overrides);
    const lengths = contextsOf(config, contexts);
    for (const stage of stagesOf(config, stages)) {
      const result = (name: string, samples: readonly number[]) => {
        const times = summarizeTimes(samples);
        return {
          suite: "decode",
          name: [preset, stage.name, name, ...overrides].join(" "),
          adapter: adapterOf(device),
          ...times,
          tokensPerSecond: Number((1000 / times.medianMs).toPrecision(3)),
        };
      };
      using engine = await openEngine(device, config, stage);
      const windows = await timeWindows(
        device,
        engine,
        config,
        Math.min(steps ?? WINDOWS, WINDOWS),
      );
      yield result(`window of ${config.seqLen}`, windows);
      const model = decodingModel(config, viewOf(stage, config));
      if (!model || !engine.decoder) continue;
      const wanted = { contexts: lengths, count: steps ?? TOKENS };
      for await (const { context, samples } of timeTokens(engine, config, model, wanted)) {
        const cacheBytes = cachePerToken({ ...config, seqLen: context }, stage).readBytes;
        yield { ...result(`cached at ${context}`, samples), cacheBytes };
      }
    }
  }
}

/** Ascending lengths up to the model's own. */
function contextsOf({ preset, seqLen }: RunConfig, typed: readonly number[]): number[] {
  const tooLong = typed.find((context) => context > seqLen);
  if (tooLong) {
    throw new UserError(
      `Cannot time contexts=${tooLong} with preset=${preset}: its seqLen is ${seqLen}; lower it, or ` +
        `add seqLen=${tooLong}`,
    );
  }
  const lengths = typed.length ? typed : [seqLen / 8, seqLen / 2, seqLen].map(Math.ceil);
  return [...new Set(lengths)].sort((a, b) => a - b);
}

/** The stages of these names; without any, the first of each kind of attention. */
function stagesOf(config: RunConfig, names: readonly string[]): Stage[] {
  if (names.length) return names.map((name) => spanNamed(config, name).stage);
  const all = config.stages;
  return all.filter((a, i) => all.findIndex((b) => b.attention === a.attention) === i);
}

function openEngine(device: Device, config: RunConfig, stage: Stage): Promise<Engine> {
  requireRoom({ ...config, batchSize: 1, evalBatches: 1 }, "evaluate", roomOf(device));
  return device.open({
    parameters: modelParameters(config),
    initial: initialParameters(config),
    loss: languageModel(config, { stage: { ...viewOf(stage, config), kl: "none" } }),
    batchSize: 1,
    seqLen: config.seqLen,
    trained: [],
    autotune: config.autotune,
  });
}

function randomTokens({ seed, seqLen, vocabSize }: RunConfig): Int32Array {
  const rng = new Rng(seed, "bench decode");
  return Int32Array.from({ length: seqLen }, () => rng.below(vocabSize));
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

async function timeWindows(
  device: Device,
  engine: Engine,
  config: RunConfig,
  count: number,
): Promise<number[]> {
  const window = randomTokens(config);
  const next = () => engine.logits(window, window.length - 1);
  await warmUp(device, 1, async () => void await next());
  const samples: number[] = [];
  for (let i = 0; i < count; i++) samples.push(await timed(next));
  return samples;
}

/** Times the last `count` tokens of each context, all in one sequence. */
async function* timeTokens(
  engine: Engine,
  config: RunConfig,
  model: DecodeFunction,
  { contexts, count }: { contexts: readonly number[]; count: number },
): AsyncGenerator<{ context: number; samples: number[] }> {
  const tokens = randomTokens(config);
  // Pipelines are made by the first token.
  {
    using first = engine.decoder!(model);
    first.push(tokens[0]);
    await first.logits();
  }
  using decoder = engine.decoder!(model);
  let position = 0;
  const next = () => {
    decoder.push(tokens[position++]);
    return decoder.logits();
  };
  for (const context of contexts) {
    while (position < context - count) decoder.push(tokens[position++]);
    const samples: number[] = [];
    while (position < context) samples.push(await timed(next));
    yield { context, samples };
  }
}
