/**
 * The training loop: stage by stage, each a page of straight code. Nothing in it waits for the GPU
 * but the reading of metrics, and that only when they are due.
 *
 * @module
 */
import type { RunConfig } from "../config.ts";
import type { Batch, Dataset } from "../data/dataset.ts";
import type { Engine, EngineState, Metrics } from "../engine.ts";
import { measureDensity } from "../eval/information_density.ts";
import { sample } from "../infer/sample.ts";
import { initialParameters, modelParameters } from "../model/parameters.ts";
import { viewOf } from "../model/stage_view.ts";
import { languageModel } from "../model/transformer.ts";
import type { Device } from "../open_device.ts";
import { Rng } from "../rng.ts";
import { type Stage, type StageSpan, stageSpans } from "../stages.ts";
import { WebGpuEngine } from "../webgpu/engine.ts";
import { formatBytes } from "../webgpu/plan.ts";
import { formatProfile } from "../webgpu/profile.ts";
import { type Checkpoint, checkpointAt, loadCheckpoint, saveCheckpoint } from "./checkpoint.ts";
import { evaluate } from "./evaluate.ts";
import { predecessor, stepHyper, trainedGroups } from "./hyper.ts";
import { kernelTimes } from "./kernel_groups.ts";
import { measureIndexer, swapTest } from "./measure.ts";
import { describeEvaluation, describeMeasurement, describeStage, describeSwap } from "./notes.ts";
import type { Progress } from "./progress.ts";
import type { RunFolder, Summary } from "./run_folder.ts";

/** Everything a run consists of. */
export interface Job {
  /** The run's configuration. */
  readonly config: RunConfig;
  /** What it trains on. */
  readonly dataset: Dataset;
  /** Where it trains. */
  readonly device: Device;
  /** Makes or opens the run folder. Called once, when the first stage's model is on the device. */
  readonly openRun: () => RunFolder;
  /** Where it tells how far it is. */
  readonly progress: Pick<Progress, "update" | "note">;
  /** Step at which to stop, the end of a stage; default: the end of the run. */
  readonly until?: number;
  /** Where to go on; null starts with new weights. */
  readonly checkpoint: Checkpoint | null;
  /** Asked between steps; true saves and stops. */
  readonly shouldStop: () => boolean;
}

/** A job under way. */
type Running = Job & { readonly run: RunFolder };

/** A run that cannot go on: its loss is not a number any more. */
export class Diverged extends Error {
  /** Tells it from other errors where classes are not compared. */
  override readonly name = "Diverged";
  /** The first step whose numbers are not finite. */
  readonly step: number;

  /** At a step, with the name and value that show it. */
  constructor(step: number, [name, value]: readonly [string, number]) {
    super(
      `Training diverged at step ${step}: ${name} is ${value}; lower lr, or raise warmupSteps`,
    );
    this.step = step;
  }
}

/** Steps between looks at the device, if nothing is logged: bounds what is queued. */
const MAX_STEPS_AHEAD = 64;
/** Milliseconds between turns of the event loop, for signals. */
const BREATH_MS = 200;
/** The step of a stage that `profile=true` measures: pipelines are warm by then. */
const PROFILED_STEP = 3;

/**
 * Trains through all stages, or until asked to stop, logging, evaluating, measuring, sampling and
 * saving on the way.
 *
 * @throws {Diverged} if a loss is not finite
 */
export async function train(job: Job): Promise<Summary> {
  const { config, device, progress } = job;
  const spans = stageSpans(config.stages);
  const first = job.checkpoint?.step ?? 0;
  const until = job.until ?? spans[spans.length - 1].end;
  let state = job.checkpoint?.state ?? null;
  let running: Running | null = null;
  for (const span of spans) {
    const { stage, start, end } = span;
    if (first >= end) continue;
    if (start >= until) break;
    using engine = await device.open(engineOptions(config, stage, state));
    running ??= { ...job, run: job.openRun() };
    const bytes = engine instanceof WebGpuEngine ? `; ${formatBytes(engine.bytes)} of memory` : "";
    progress.note(`stage ${stage.name}: ${describeStage(stage)}${bytes}`);
    if (first > start) {
      engine.importState(state!);
    } else {
      state = await startingState(running, { spans, span, state });
      if (state) engine.importState(state);
    }
    const { step, stopped } = await trainStage(running, {
      ...{ spans, span, engine },
      first: Math.max(first, start),
    });
    if (stopped) return running.run.finish("interrupted", { step });
    state = await engine.exportState();
  }
  const { run } = running ?? { run: job.openRun() };
  return run.finish("done", { step: until });
}

/** The engine of a stage. */
function engineOptions(config: RunConfig, stage: Stage, state: EngineState | null) {
  return {
    parameters: modelParameters(config),
    initial: state?.parameters ?? initialParameters(config),
    loss: languageModel(config, { stage: viewOf(stage, config), trains: stage.trains }),
    batchSize: config.batchSize,
    seqLen: config.seqLen,
    trained: trainedGroups(stage),
    autotune: config.autotune,
  };
}

/** What a stage starts with: where its predecessor ended, moments as the stage wants them. */
async function startingState(
  { run }: Running,
  { spans, span, state }: {
    spans: readonly StageSpan[];
    span: StageSpan;
    state: EngineState | null;
  },
): Promise<EngineState | null> {
  const before = predecessor(spans, span);
  if (!before) return null;
  const isLinear = before.index === span.index - 1;
  const found = isLinear
    ? state!
    : (await loadCheckpoint(checkpointAt(run.path, before.end))).state;
  if (span.stage.optimizer === "keep") return found;
  const groups: readonly string[] = trainedGroups(span.stage);
  for (const { name, group } of modelParameters(run.config)) {
    if (!groups.includes(group)) continue;
    found.m.get(name)!.fill(0);
    found.v.get(name)!.fill(0);
  }
  return found;
}

/** Trains one stage from step `first` of the run on, to its end or until asked to stop. */
async function trainStage(
  job: Running,
  { spans, span, engine, first }: {
    spans: readonly StageSpan[];
    span: StageSpan;
    engine: Engine;
    first: number;
  },
): Promise<{ step: number; stopped: boolean }> {
  const { config, dataset, run, progress } = job;
  const { stage, start, end } = span;
  const tokensPerStep = config.batchSize * config.seqLen * config.accumulate;
  const isLastStage = span.index === spans.length - 1;
  let step = first;
  let read = step;
  let breath = performance.now();
  let clock = { start: performance.now(), step };
  let kernels: Metrics = {};

  while (step < end) {
    const batches = trainingBatches(job, span, step);
    const hyper = stepHyper(config, spans, { span, step: step - start });
    if (config.profile && step - start === PROFILED_STEP && canProfile(engine, batches)) {
      const rows = await engine.profile(batches[0], hyper);
      progress.note(formatProfile(rows));
      kernels = kernelTimes(rows);
    } else {
      engine.step(batches, hyper);
    }
    step++;

    const isLast = step === end;
    const stopping = job.shouldStop();
    const due = (every: number) => isLast || every > 0 && step % every === 0;
    const saves = due(config.saveEvery) || stopping;
    const values: Metrics = {};
    if (due(config.logEvery) || saves || step - read >= MAX_STEPS_AHEAD) {
      const rows = await engine.metrics();
      requireFinite(rows, read);
      read = step;
      if (due(config.logEvery)) {
        const stepMs = (performance.now() - clock.start) / (step - clock.step);
        clock = { start: performance.now(), step };
        const tokensPerSecond = tokensPerStep / stepMs * 1000;
        const latest = trainingValues(rows[rows.length - 1]);
        const rates = Object.entries(hyper.groups).map(([group, { lr }]) => [`lr/${group}`, lr]);
        Object.assign(values, latest, Object.fromEntries(rates), {
          "stage": span.index,
          "train/tokens": step * tokensPerStep,
          "time/step_ms": stepMs,
          "time/tokens_per_s": tokensPerSecond,
        }, kernels);
        kernels = {};
        const isIndexer = stage.trains === "indexer";
        const loss = isIndexer ? latest["train/kl"] : latest["train/loss"];
        const { lr } = hyper.groups[isIndexer ? "indexer" : "backbone"];
        progress.update({ step, loss, lr, stepMs, tokensPerSecond });
      }
    }
    const pause = performance.now();
    if (due(config.evalEvery)) {
      Object.assign(values, await evaluate(engine, { dataset, batches: config.evalBatches }));
      progress.note(describeEvaluation(step, values));
    }
    if (config.attention === "mla" && due(config.measureEvery)) {
      const batch = dataset.batch("validation", 0);
      Object.assign(values, await measureDensity(engine, { config, stage, batch }));
    }
    const isIndexed = stage.kl !== "none" || stage.attention === "sparse";
    if (isIndexed && (due(config.measureEvery) || step === start + 1)) {
      const batch = dataset.batch("validation", 0);
      Object.assign(values, await measureIndexer(engine, { config, stage, batch }));
      progress.note(describeMeasurement(step, values));
    }
    if (isIndexed && isLast && (isLastStage || stage.attention === "sparse")) {
      const count = Math.min(config.evalBatches, dataset.validationBatches);
      const held = Array.from({ length: count }, (_, i) => dataset.batch("validation", i));
      const swapped = await swapTest(engine, { config, stage, batches: held });
      Object.assign(values, swapped);
      progress.note(describeSwap(swapped));
    }
    if (Object.keys(values).length) run.log(step, { stage: span.index, ...values });
    const samples = config.sampleEvery > 0 && step % config.sampleEvery === 0 ||
      isLast && isLastStage;
    if (samples && dataset.tokenizer && config.sampleTokens > 0) {
      run.sample(step, await sampleText(job, engine, step));
    }
    if (saves) await save(job, engine, step);
    if (stopping && !(isLast && isLastStage)) return { step, stopped: true };
    clock.start += performance.now() - pause;

    if (performance.now() - breath > BREATH_MS) {
      await new Promise((resolve) => setTimeout(resolve));
      breath = performance.now();
    }
  }
  return { step, stopped: false };
}

function trainingBatches({ config, dataset }: Job, span: StageSpan, step: number): Batch[] {
  const first = (span.firstBatch + step - span.start) * config.accumulate;
  return Array.from({ length: config.accumulate }, (_, i) => dataset.batch("train", first + i));
}

function canProfile(engine: Engine, batches: readonly Batch[]): engine is WebGpuEngine {
  return engine instanceof WebGpuEngine && batches.length === 1;
}

/** The engine's metrics under the names of the log; `train/kl` is the mean over layers. */
function trainingValues(row: Metrics): Metrics {
  const values: Metrics = {};
  const kls: number[] = [];
  for (const [name, value] of Object.entries(row)) {
    values[name.includes("/") ? name : `train/${name}`] = value;
    if (/^index\/\d+\/kl$/.test(name)) kls.push(value);
  }
  if (kls.length) values["train/kl"] = kls.reduce((a, b) => a + b) / kls.length;
  return values;
}

function requireFinite(rows: readonly Metrics[], firstStep: number): void {
  rows.forEach((row, i) => {
    const bad = Object.entries(row).find(([, value]) => !Number.isFinite(value));
    if (bad) throw new Diverged(firstStep + i + 1, bad);
  });
}

async function sampleText(job: Job, engine: Engine, step: number): Promise<string> {
  const { config, dataset } = job;
  const tokenizer = dataset.tokenizer!;
  const prompt = tokenizer.encode(config.samplePrompt);
  const tokens = await sample(engine, {
    prompt: prompt.length ? prompt : [0],
    count: config.sampleTokens,
    temperature: config.temperature,
    seqLen: config.seqLen,
    rng: new Rng(config.seed, `sample ${step}`),
  });
  return config.samplePrompt + tokenizer.decode(tokens);
}

async function save({ dataset, run }: Running, engine: Engine, step: number): Promise<void> {
  await saveCheckpoint(run.path, {
    step,
    config: run.config,
    state: await engine.exportState(),
    tokenizer: dataset.tokenizer?.toJSON() ?? null,
  });
}
