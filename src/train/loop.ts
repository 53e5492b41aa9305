/**
 * The training loop: a page of straight code. Nothing in it waits for the GPU but the reading of
 * metrics, and that only when they are due.
 *
 * @module
 */
import type { RunConfig } from "../config.ts";
import type { Dataset } from "../data/dataset.ts";
import type { Engine, Metrics, StepHyper } from "../engine.ts";
import { sample } from "../infer/sample.ts";
import { Rng } from "../rng.ts";
import type { WebGpuEngine } from "../webgpu/engine.ts";
import { formatProfile } from "../webgpu/profile.ts";
import { type Checkpoint, saveCheckpoint } from "./checkpoint.ts";
import { evaluate } from "./evaluate.ts";
import type { Progress } from "./progress.ts";
import type { RunFolder, Summary } from "./run_folder.ts";
import { learningRate } from "./schedule.ts";

/** Everything a run consists of. */
export interface Job {
  /** What to do, complete. */
  readonly config: RunConfig;
  /** Where batches come from. */
  readonly dataset: Dataset;
  /** The model; its weights are those to start from. */
  readonly engine: Engine;
  /** Where logs, samples and checkpoints go. */
  readonly run: RunFolder;
  /** Where people look on. */
  readonly progress: Progress;
  /** Where to go on; its weights are in the engine already. */
  readonly checkpoint: Checkpoint | null;
  /** Asked between steps; true saves and stops. */
  readonly shouldStop: () => boolean;
}

/** A run that cannot go on: its loss is not a number any more. */
export class Diverged extends Error {
  /** The name of the class, for printed errors. */
  override readonly name = "Diverged";
}

/** Steps between looks at the device, if nothing is logged: bounds what is queued. */
const MAX_STEPS_AHEAD = 64;
/** Milliseconds between turns of the event loop, for signals. */
const BREATH_MS = 200;
/** The step that `profile=true` measures: pipelines are warm by then. */
const PROFILED_STEP = 3;

/**
 * Trains to `config.steps` or until asked to stop, logging, evaluating, sampling and saving on
 * the way.
 *
 * @throws {Diverged} if a loss is not finite
 */
export async function train(job: Job): Promise<Summary> {
  const { config, dataset, engine, run, progress } = job;
  const tokensPerStep = config.batchSize * config.seqLen * config.accumulate;
  let step = job.checkpoint?.step ?? 0;
  let read = step;
  let breath = performance.now();
  let clock = { start: performance.now(), step };

  while (step < config.steps) {
    const lr = learningRate(config, step);
    const batches = Array.from(
      { length: config.accumulate },
      (_, i) => dataset.batch("train", step * config.accumulate + i),
    );
    const hyper = hyperOf(config, { lr, update: step + 1 });
    if (config.profile && step === PROFILED_STEP && "profile" in engine && batches.length === 1) {
      const rows = await (engine as WebGpuEngine).profile(batches[0], hyper);
      progress.note(formatProfile(rows));
    } else {
      engine.step(batches, hyper);
    }
    step++;

    const isLast = step === config.steps;
    const stopping = job.shouldStop();
    const due = (every: number) => isLast || every > 0 && step % every === 0;
    const values: Record<string, number> = {};
    const saves = due(config.saveEvery) || stopping;
    if (due(config.logEvery) || saves || step - read >= MAX_STEPS_AHEAD) {
      const rows = await engine.metrics();
      requireFinite(rows, read);
      read = step;
      const latest = rows[rows.length - 1];
      if (due(config.logEvery)) {
        const stepMs = (performance.now() - clock.start) / (step - clock.step);
        clock = { start: performance.now(), step };
        const tokensPerSecond = tokensPerStep / stepMs * 1000;
        for (const [name, value] of Object.entries(latest)) {
          values[name.includes("/") ? name : `train/${name}`] = value;
        }
        Object.assign(values, {
          "train/lr": lr,
          "train/tokens": step * tokensPerStep,
          "time/step_ms": stepMs,
          "time/tokens_per_s": tokensPerSecond,
        });
        progress.update({ step, loss: latest.loss, lr, stepMs, tokensPerSecond });
      }
    }
    const pause = performance.now();
    if (due(config.evalEvery)) {
      Object.assign(values, await evaluate(engine, { dataset, batches: config.evalBatches }));
      const bits = "val/bpb" in values ? `, ${values["val/bpb"].toFixed(3)} bits a byte` : "";
      const right = "val/accuracy" in values
        ? `, ${(100 * values["val/accuracy"]).toFixed(1)} % right`
        : "";
      progress.note(
        `step ${step}: validation loss ${values["val/loss"].toFixed(4)}${bits}${right}`,
      );
    }
    if (Object.keys(values).length) run.log(step, values);
    if (due(config.sampleEvery) && dataset.tokenizer && config.sampleTokens > 0) {
      run.sample(step, await sampleText(job, step));
    }
    if (saves) await save(job, step);
    if (stopping && !isLast) return run.finish("interrupted", { step });
    clock.start += performance.now() - pause;

    if (performance.now() - breath > BREATH_MS) {
      await new Promise((resolve) => setTimeout(resolve));
      breath = performance.now();
    }
  }
  return run.finish("done", { step });
}

function hyperOf(config: RunConfig, { lr, update }: { lr: number; update: number }): StepHyper {
  const { beta1, beta2, adamEps: eps, weightDecay } = config;
  const backbone = { lr, weightDecay, clip: config.clip ?? 0 };
  return { update, beta1, beta2, eps, groups: { backbone } };
}

function requireFinite(rows: readonly Metrics[], firstStep: number): void {
  rows.forEach((row, i) => {
    const bad = Object.entries(row).find(([, value]) => !Number.isFinite(value));
    if (!bad) return;
    throw new Diverged(
      `Training diverged at step ${firstStep + i + 1}: ${bad[0]} is ${bad[1]}; ` +
        "lower lr, or raise warmupSteps",
    );
  });
}

async function sampleText(job: Job, step: number): Promise<string> {
  const { config, dataset, engine } = job;
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

async function save(job: Job, step: number): Promise<void> {
  const { dataset, engine, run } = job;
  await saveCheckpoint(run.path, {
    step,
    config: run.config,
    state: await engine.exportState(),
    tokenizer: dataset.tokenizer?.toJSON() ?? null,
  });
}
