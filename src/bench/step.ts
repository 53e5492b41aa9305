/**
 * `deno task bench step`: training steps of the presets, stage by stage, on random tokens.
 *
 * @module
 */
import { resolveConfig, type RunConfig } from "../config/config.ts";
import { requireRoom, roomOf } from "../costs/room.ts";
import type { Batch } from "../data/dataset.ts";
import type { Engine, StepHyper } from "../engine.ts";
import { UserError } from "../errors.ts";
import { initialParameters, modelParameters } from "../model/parameters.ts";
import { viewOf } from "../model/stage_view.ts";
import { languageModel } from "../model/transformer.ts";
import type { Device } from "../open_device.ts";
import { Rng } from "../rng.ts";
import { type StageSpan, stageSpans } from "../config/stages.ts";
import { stepHyper, trainedGroups } from "../train/hyper.ts";
import { WebGpuEngine } from "../webgpu/engine/engine.ts";
import {
  adapterOf,
  type BenchOptions,
  type BenchResult,
  isSoftware,
  summarizeTimes,
  warmUp,
} from "./result.ts";

/** Groups of steps, each of which is one sample. */
const GROUPS = 7;
/** A group is about this long, so that one reading does not count. */
const GROUP_MS = 200;
const MAX_GROUP_STEPS = 50;

/** A model in a stage, ready to be trained on random tokens. */
export interface BenchModel extends Disposable {
  /** The model on its device. */
  readonly engine: Engine;
  /** One step; does not wait. */
  step(): void;
}

/** The configuration of a preset with what was typed. */
export function benchConfig(preset: string, overrides: readonly string[]): RunConfig {
  const config = resolveConfig({}, [`preset=${preset}`, ...overrides]);
  if (config.vocabSize) return config;
  throw new UserError(
    "Cannot time tokenizer=char without a text: give vocabSize, such as vocabSize=96",
  );
}

/**
 * The stage of a name.
 *
 * @throws {UserError} if the recipe has no stage of that name
 */
export function spanNamed(config: RunConfig, name: string): StageSpan {
  const span = stageSpans(config.stages).find(({ stage }) => stage.name === name);
  if (span) return span;
  const names = config.stages.map((stage) => stage.name).join(", ");
  throw new UserError(`Cannot time stages=${name}: recipe=${config.recipe} has ${names}`);
}

/**
 * Puts a stage of a model on the device, with first weights and random batches.
 *
 * @throws {UserError} if the recipe has no stage of that name
 */
export async function openBenchModel(
  device: Device,
  config: RunConfig,
  name: string,
): Promise<BenchModel> {
  const span = spanNamed(config, name);
  const { stage } = span;
  requireRoom(config, "train", roomOf(device));
  const engine = await device.open({
    parameters: modelParameters(config),
    initial: initialParameters(config),
    loss: languageModel(config, { stage: viewOf(stage, config), trains: stage.trains }),
    batchSize: config.batchSize,
    seqLen: config.seqLen,
    trained: trainedGroups(stage),
    autotune: config.autotune,
  });
  const batches = Array.from({ length: config.accumulate }, (_, i) => randomBatch(config, i));
  // The same step again and again: the time does not depend on which one it is.
  const hyper: StepHyper = stepHyper(config, span, 0);
  return {
    engine,
    step: () => engine.step(batches, hyper),
    [Symbol.dispose]: () => engine[Symbol.dispose](),
  };
}

function randomBatch({ seed, batchSize, seqLen, vocabSize }: RunConfig, index: number): Batch {
  const rng = new Rng(seed, `bench ${index}`);
  const count = batchSize * seqLen;
  const tokens = Int32Array.from({ length: count + 1 }, () => rng.below(vocabSize));
  return { tokens: tokens.slice(0, count), targets: tokens.slice(1), count };
}

/** Times every preset in every stage; metrics are read only between groups of steps. */
export async function* stepSuite(
  device: Device,
  { presets, stages, steps, overrides }: BenchOptions,
): AsyncGenerator<BenchResult> {
  const usual = isSoftware(device) ? ["nano"] : ["tiny", "small", "base", "long"];
  for (const preset of presets.length ? presets : usual) {
    const config = benchConfig(preset, overrides);
    const names = stages.length ? stages : config.stages.map((stage) => stage.name);
    for (const name of names) {
      using model = await openBenchModel(device, config, name);
      const times = await timeSteps(device, model, steps);
      const { engine } = model;
      const tokens = config.batchSize * config.seqLen * config.accumulate;
      yield {
        suite: "step",
        name: [preset, config.attention, name, ...overrides].join(" "),
        adapter: adapterOf(device),
        ...times,
        tokensPerSecond: Math.round(1000 * tokens / times.medianMs),
        ...(engine instanceof WebGpuEngine ? { bytes: engine.bytes } : {}),
      };
    }
  }
}

/** Times groups of steps: `steps` in all, or as many as make groups of a good length. */
async function timeSteps(
  device: Device,
  { engine, step }: BenchModel,
  steps: number | null,
): Promise<{ medianMs: number; minMs: number }> {
  const group = async (count: number) => {
    const start = performance.now();
    for (let i = 0; i < count; i++) step();
    await engine.metrics();
    return (performance.now() - start) / count;
  };
  let ms = 0;
  await warmUp(device, 2, async () => {
    ms = await group(1);
  });
  const groups = Math.min(GROUPS, steps ?? GROUPS);
  const count = steps === null
    ? Math.min(MAX_GROUP_STEPS, Math.max(1, Math.ceil(GROUP_MS / ms)))
    : Math.ceil(steps / groups);
  const samples: number[] = [];
  for (let i = 0; i < groups; i++) samples.push(await group(count));
  return summarizeTimes(samples);
}
