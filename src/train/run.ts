/**
 * A run from its configuration to its end: data, folder, training.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import { stageSpans } from "../config/stages.ts";
import { requireRoom } from "../costs/room.ts";
import { type Dataset, openDataset } from "../data/dataset.ts";
import { requireSameData } from "../data/identity.ts";
import { GpuError, UserError, WriteError } from "../errors.ts";
import { setAsideLater } from "../runs/newest_checkpoint.ts";
import { describeEnvironment } from "../runs/environment.ts";
import { FolderLock } from "../files/lock.ts";
import type { Job } from "./job.ts";
import { train } from "./loop.ts";
import { readSummary, RunFolder, type RunStatus } from "../runs/run_folder.ts";
import { Diverged } from "../runs/diverged.ts";

/** What {@linkcode startRun} needs. */
export interface RunOptions extends Omit<Job, "openRun"> {
  /** With a number it names the folder of a configuration without name. */
  readonly experiment: string;
  /** The words of the command, for `env.json`. */
  readonly argv: readonly string[];
  /** Where run folders lie; default `runs`. */
  readonly root?: string;
  /** The lock of the run that is resumed, if the caller has it already. */
  readonly lock?: FolderLock | null;
}

/** How a run ended. */
export interface Outcome {
  /** Its folder. */
  readonly path: string;
  /** Done, interrupted or failed. */
  readonly status: Exclude<RunStatus, "running">;
  /** Finished steps; of a failed run the step at which it diverged. */
  readonly step: number;
  /** Why it failed. */
  readonly error?: string;
}

/**
 * Opens the data of a run. The vocabulary of the configuration becomes that of the data; a larger
 * one may be asked for.
 *
 * @param tokenizer content of a saved `tokenizer.json`
 * @param tokenizerFile the file that it was read from, for errors
 * @throws {UserError} if the data cannot be read, a smaller vocabulary is asked for, or the run needs
 * more memory than the machine has
 */
export async function openRunData(
  config: RunConfig,
  tokenizer: unknown = null,
  tokenizerFile?: string | null,
): Promise<{ config: RunConfig; dataset: Dataset }> {
  requireRoom(config, "train");
  const dataset = await openDataset({
    ...config,
    taskOptions: config,
    ...(tokenizer ? { tokenizerJson: tokenizer as object } : {}),
    ...(tokenizerFile ? { tokenizerFile } : {}),
  });
  const { vocabSize } = dataset;
  if (config.vocabSize > 0 && config.vocabSize < vocabSize) {
    throw new UserError(
      `Cannot use vocabSize=${config.vocabSize}: ${dataset.name} has ${vocabSize} tokens; ` +
        "leave it out, or raise it",
    );
  }
  return { config: { ...config, vocabSize: Math.max(config.vocabSize, vocabSize) }, dataset };
}

/**
 * Trains a run in its folder: a new one, or that of `config.resume`, from `checkpoint` on. A run
 * that diverges is an outcome. One that is done, with nothing left to do, stays as it is.
 *
 * @throws whatever else ends it; its folder is then marked failed
 */
export async function startRun(options: RunOptions): Promise<Outcome> {
  const { config, dataset, checkpoint, device, experiment, root, argv } = options;
  if (!config.otherData) {
    requireSameData(dataset.identity, checkpoint?.data, {
      action: `resume ${config.resume}`,
      data: config.data,
      wayOut: "put it back, give that text with data=…, or go on with this one by otherData=true",
    });
  }
  const end = options.until ?? stageSpans(config.stages).at(-1)!.end;
  if (config.resume && checkpoint?.step === end && readSummary(config.resume)?.status === "done") {
    // Opening it would make it a run that is not done, until it is again.
    return { path: config.resume, status: "done", step: end };
  }
  let run: RunFolder | null = null;
  let lock: FolderLock | null = null;
  const lockOf = (path: string) =>
    options.lock ? null : FolderLock.take(path, {
      action: `train in ${path}`,
      note: (line) => options.progress.note(line),
    });
  const openRun = () => {
    const logs = checkpoint?.logs ?? { metrics: 0, samples: 0 };
    if (config.resume) lock = lockOf(config.resume);
    if (config.resume && checkpoint) setAsideLater(config.resume, checkpoint.step);
    const opened = config.resume
      ? RunFolder.resume(config.resume, { config, logs })
      : RunFolder.create(config, { experiment, root });
    // Whoever went on with it in this moment has it: it is not this run's to be marked.
    lock ??= lockOf(opened.path);
    run = opened;
    const { gpu } = device;
    run.writeEnvironment(describeEnvironment({
      backend: gpu ? "webgpu" : "cpu",
      adapter: gpu?.name ?? "tfjs wasm",
      features: gpu?.features ?? [],
      limits: gpu?.limits ?? {},
      seed: config.seed,
      data: dataset.identity,
      argv,
    }));
    return run;
  };
  try {
    const { status, step } = await train({ ...options, openRun });
    return { path: run!.path, status: status as Outcome["status"], step };
  } catch (error) {
    const started = run as RunFolder | null;
    const message = error instanceof Error ? error.message : String(error);
    const step = error instanceof Diverged ? error.step : started?.step ?? 0;
    try {
      started?.finish("failed", { step, error: message });
    } catch (unwritten) {
      // What ended the run is told; that its folder cannot be marked follows from a full disk.
      if (!(unwritten instanceof WriteError)) throw unwritten;
    }
    if (started && error instanceof GpuError) {
      throw new GpuError(
        `Cannot go on: ${message}; nothing since then was kept: go on with resume=${started.path}`,
        { cause: error },
      );
    }
    if (!(error instanceof Diverged) || !started) throw error;
    return { path: started.path, status: "failed", step, error: message };
  } finally {
    (lock as FolderLock | null)?.[Symbol.dispose]();
  }
}
