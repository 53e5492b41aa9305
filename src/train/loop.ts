/**
 * The training loop: stage by stage, each a page of straight code. Nothing in it waits for the GPU
 * but the reading of metrics, and that only when they are due.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import { requireRoom, roomOf } from "../costs/room.ts";
import type { Batch } from "../data/dataset.ts";
import type { Engine, EngineState, Metrics } from "../engine.ts";
import { initialParameters, modelParameters } from "../model/parameters.ts";
import { viewOf } from "../model/stage_view.ts";
import { languageModel } from "../model/transformer.ts";
import { meets, parseCriterion } from "../config/criterion.ts";
import { type StageSpan, stageSpans } from "../config/stages.ts";
import type { Stage } from "../config/stage_fields.ts";
import { WebGpuEngine } from "../webgpu/engine/engine.ts";
import { formatBytes } from "../text/units.ts";
import { checkpointAt, loadCheckpoint, saveCheckpoint } from "../runs/checkpoint.ts";
import { explain } from "../runs/diverged.ts";
import { stepHyper, trainedGroups } from "./hyper.ts";
import type { Job } from "./job.ts";
import { describeStage } from "./notes.ts";
import { observe, sampleNote, sampleText, type StepDone } from "./observe.ts";
import { requirePlans } from "./rehearsal.ts";
import { isProfiled, profileNote, profileStep, WARM_STEPS } from "./profiling.ts";
import type { RunFolder, Summary } from "../runs/run_folder.ts";
import { SkippedSteps } from "./skipped_steps.ts";
import { StepLog } from "./step_log.ts";

/** A job under way. */
type Running = Job & {
  readonly run: RunFolder;
  readonly clock: SaveClock;
  readonly skipped: SkippedSteps;
};

/** Tells when so much time has gone by that a checkpoint is due, whatever the step. */
class SaveClock {
  readonly #ms: number;
  #saved = performance.now();

  constructor({ saveMinutes }: RunConfig) {
    this.#ms = saveMinutes > 0 ? saveMinutes * 60_000 : Infinity;
  }

  isDue(): boolean {
    return performance.now() - this.#saved >= this.#ms;
  }

  /** To be called when a checkpoint has been written. */
  reset(): void {
    this.#saved = performance.now();
  }
}

/** Milliseconds between turns of the event loop, for signals. */
const BREATH_MS = 200;

/**
 * Trains through all stages, or until asked to stop, logging, evaluating, measuring, sampling and
 * saving on the way.
 *
 * @throws {Diverged} if a number that is logged, or one of the state, is not finite
 */
export async function train(job: Job): Promise<Summary> {
  const { config, device, progress } = job;
  requireRoom(config, "train", roomOf(device));
  const spans = stageSpans(config.stages);
  const first = job.checkpoint?.step ?? 0;
  const until = job.until ?? spans[spans.length - 1].end;
  requirePlans(device, config, spans.filter(({ start, end }) => first < end && start < until));
  let state = job.checkpoint?.state ?? null;
  let running: Running | null = null;
  for (const note of [profileNote(job, first), sampleNote(job)]) if (note) progress.note(note);
  for (const span of spans) {
    const { stage, start, end } = span;
    if (first >= end) continue;
    if (start >= until) break;
    using engine = await device.open(engineOptions(config, stage, state));
    running ??= begin(job, spans);
    const bytes = engine instanceof WebGpuEngine ? `; ${formatBytes(engine.bytes)} of memory` : "";
    progress.note(`stage ${stage.name}: ${describeStage(stage)}${bytes}`);
    if (config.plan && engine instanceof WebGpuEngine) progress.note(engine.printPlan());
    if (first > start) {
      engine.importState(state!);
    } else {
      state = await startingState(running, span, state);
      if (state) engine.importState(state);
    }
    const { step, stopped } = await trainStage(running, {
      ...{ span, engine },
      first: Math.max(first, start),
    });
    if (stopped) return running.run.finish("interrupted", { step });
    state = await engine.exportState();
  }
  const { run } = running ?? { run: job.openRun() };
  return run.finish("done", { step: until });
}

function begin(job: Job, spans: readonly StageSpan[]): Running {
  const run = job.openRun();
  const { config } = job;
  return { ...job, run, clock: new SaveClock(config), skipped: new SkippedSteps(run.path, spans) };
}

/** The engine of a stage. */
function engineOptions(config: RunConfig, stage: Stage, state: EngineState | null) {
  return {
    parameters: modelParameters(config),
    initial: state?.parameters ?? initialParameters(config),
    loss: languageModel(config, { stage: viewOf(stage, config), trains: stage.trains }),
    batchSize: config.batchSize,
    microBatches: config.accumulate,
    seqLen: config.seqLen,
    trained: trainedGroups(stage),
    autotune: config.autotune,
  };
}

/** What a stage starts with: where its predecessor ended, moments as the stage wants them. */
async function startingState(
  { run }: Running,
  { stage, index, before }: StageSpan,
  state: EngineState | null,
): Promise<EngineState | null> {
  if (!before) return null;
  const isLinear = before.index === index - 1;
  const found = isLinear
    ? state!
    : (await loadCheckpoint(checkpointAt(run.path, before.end))).state;
  if (stage.optimizer === "keep") return found;
  const groups: readonly string[] = trainedGroups(stage);
  for (const { name, group } of modelParameters(run.config)) {
    if (!groups.includes(group)) continue;
    found.m.get(name)!.fill(0);
    found.v.get(name)!.fill(0);
  }
  return found;
}

/**
 * Trains one stage from step `first` of the run on, to its end or until asked to stop. Where an
 * evaluation meets its criterion it is over: the run goes on as from its last step, and the steps in
 * between are never done. So all that comes after has the same steps, batches and rates, whenever
 * that was.
 */
async function trainStage(
  job: Running,
  { span, engine, first }: { span: StageSpan; engine: Engine; first: number },
): Promise<{ step: number; stopped: boolean }> {
  const { config, run, progress } = job;
  const { index, start, end } = span;
  const criterion = span.stage.until === null ? null : parseCriterion(span.stage.until);
  const log = new StepLog(job, { span, engine, first });
  let breath = performance.now();
  for (let step = first; step < end;) {
    const batches = trainingBatches(job, span, step);
    const hyper = stepHyper(config, span, step - start);
    if (isProfiled(job, engine) && step - first === WARM_STEPS) {
      log.add(await profileStep(engine, { batch: batches[0], hyper, progress }));
    } else {
      engine.step(batches, hyper);
    }
    step++;

    const isEnd = step === end;
    const due = (every: number) => isEnd || every > 0 && step % every === 0;
    const stops = job.shouldStop();
    const saves = due(config.saveEvery) || stops || job.clock.isDue();
    const mayEnd = criterion !== null && due(config.evalEvery);
    const values: Metrics = {};
    if (due(config.logEvery)) Object.assign(values, await log.row(step, hyper));
    else if (saves || mayEnd || log.isBehind(step)) await log.read(step);
    const lookAndLog = async (done: StepDone): Promise<boolean> => {
      const found = await observe(job, done);
      const isMet = criterion !== null && meets(criterion, found);
      if (criterion && done.step === end) Object.assign(found, ending(job, span, { step, isMet }));
      Object.assign(values, found);
      if (Object.keys(values).length) run.log(done.step, { stage: index, ...values });
      const text = await sampleText(job, done);
      if (text !== null) run.sample(done.step, text);
      return isMet;
    };
    await log.pause(async () => {
      const isOver = await lookAndLog({ engine, span, step, due }) && !isEnd;
      if (isOver) {
        await lookAndLog({ engine, span, step: end, due: () => true });
        step = end;
      }
      if (saves || isOver) await save(job, engine, step);
    }).catch(async (error) => {
      throw await explain(error, { engine, stage: span.stage, step });
    });
    if (stops && !(step === end && index === config.stages.length - 1)) {
      return { step, stopped: true };
    }

    if (performance.now() - breath > BREATH_MS) {
      await new Promise((resolve) => setTimeout(resolve));
      breath = performance.now();
    }
  }
  return { step: end, stopped: false };
}

/** What is logged, and told, of a stage with a criterion at its end, after step `step`. */
function ending(
  { progress, skipped }: Running,
  { stage, start, end }: StageSpan,
  { step, isMet }: { step: number; isMet: boolean },
): Metrics {
  const steps = step - start;
  skipped.add(end - step);
  progress.note(
    `stage ${stage.name}: ${stage.until} ` +
      (isMet ? `after ${steps} of ${stage.steps} steps` : `was not met in ${steps} steps`),
  );
  return { "until/steps": steps, "until/met": Number(isMet) };
}

function trainingBatches({ config, dataset }: Job, span: StageSpan, step: number): Batch[] {
  const first = (span.firstBatch + step - span.start) * config.accumulate;
  return Array.from({ length: config.accumulate }, (_, i) => dataset.batch("train", first + i));
}

async function save({ dataset, run, clock }: Running, engine: Engine, step: number): Promise<void> {
  await saveCheckpoint(run.path, {
    step,
    config: run.config,
    state: await engine.exportState(),
    tokenizer: dataset.tokenizer?.toJSON() ?? null,
    data: dataset.identity,
  });
  clock.reset();
}
