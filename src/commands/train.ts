/**
 * `deno task train [experiment] [key=value …]`
 *
 * @module
 */
import { isThere } from "../files/files.ts";
import { FolderLock } from "../files/lock.ts";
import { printIfPossible, StopSignals } from "./stop_signals.ts";
import { join } from "node:path";
import { exitCodes, runCommand, splitArguments } from "./command.ts";
import { describeFields, parseOverrides, type RunConfig } from "../config/config.ts";
import { describeCosts } from "../costs/description.ts";
import type { Dataset } from "../data/dataset.ts";
import { isTask } from "../config/checks.ts";
import { taskText } from "../data/tasks/tasks.ts";
import { describeIdentity } from "../data/identity.ts";
import { UserError } from "../errors.ts";
import { experimentNames, loadExperiment, resolveDelta } from "../config/experiment.ts";
import { openDevice } from "../open_device.ts";
import { writeReportAfterTraining } from "../report/run/run_report.ts";
import { stageSpans } from "../config/stages.ts";
import type { Checkpoint } from "../runs/checkpoint.ts";
import { loadNewest } from "../runs/newest_checkpoint.ts";
import { Progress } from "../train/progress.ts";
import { rateNote, resumeConfig, unsavedConfig, withRates } from "../train/resume.ts";
import { openRunData, startRun } from "../train/run.ts";
import { readSummary, requireNew, RUNS } from "../runs/run_folder.ts";

/** The experiment that runs where none is named. */
const QUICK_START = "quickstart";
/** Characters of a task's sample that are shown. */
const SHOWN = 100;

async function help(): Promise<string> {
  const own = Object.entries((await loadExperiment(QUICK_START)).config);
  return `usage: deno task train [experiment] [key=value ...]

  deno task train                                   the quick start
  deno task train preset=tiny data='texts/*.txt' steps=2000 lr=1e-3
  deno task train resume=runs/quickstart_001        go on where it last saved
  deno task train resume=runs/quickstart_001 lr=1e-3   after it has failed: with other rates

The run folder is printed last. Ctrl-C saves and stops. Experiments: ${
    experimentNames().join(", ")
  }. Without one it is ${QUICK_START}, which sets ${
    own.map(([key, value]) => `${key}=${value}`).join(" ")
  }, unless typed.

${describeFields()}`;
}

async function main(args: string[]): Promise<number> {
  const { flags, pairs, words } = splitArguments(args, []);
  if (flags.has("--help")) {
    console.log(await help());
    return exitCodes.done;
  }
  printIfPossible();
  if (words.length > 1) {
    throw new UserError(`Cannot train ${words.join(" and ")} at once: give one experiment`);
  }
  const { resume } = parseOverrides(pairs);
  // Before it is read, so that nobody writes into it in between.
  using lock = resume && isThere(resume)
    ? FolderLock.take(resume, { action: `go on with ${resume}`, note: console.error })
    : null;
  const { config: asked, checkpoint, experiment, change } = await resolveRun(words[0], pairs);
  const { config, dataset } = await openRunData(
    asked,
    checkpoint?.tokenizer,
    checkpoint && join(checkpoint.path, "tokenizer.json"),
  );
  const progress = new Progress(stageSpans(config.stages).at(-1)!.end);
  const note = (line: string) => progress.note(line);
  using device = await openDevice(config.device, { note });
  const { gpu } = device;
  introduce(config, dataset, gpu ? `webgpu: ${gpu.name}` : "cpu: tfjs wasm", note);
  if (change) note(change);

  using signals = new StopSignals(() => note("interrupted: saving, again to stop at once"));
  try {
    const { path, status, step, error } = await startRun({
      ...{ config, dataset, device, progress, checkpoint, experiment, argv: args, lock },
      shouldStop: () => signals.isAsked,
    });
    progress.done();
    if (status === "interrupted") {
      progress.note(`stopped after step ${step}; go on with resume=${path}`);
    }
    progress.note(await writeReportAfterTraining(path));
    if (error) {
      console.error(`error: ${error}: resume=${path} lr=… goes back to what it last saved`);
    }
    console.log(path);
    return exitCodes[status];
  } finally {
    progress.done();
  }
}

async function resolveRun(name: string | undefined, pairs: readonly string[]): Promise<{
  config: RunConfig;
  checkpoint: Checkpoint | null;
  experiment: string;
  /** What is to be said of what the run does from now on. */
  change: string | null;
}> {
  const { resume } = parseOverrides(pairs);
  if (resume) {
    if (name) throw new UserError(`Cannot start experiment "${name}" with resume=: leave one out`);
    const unsaved = await unsavedConfig(resume);
    const checkpoint = unsaved ? null : await loadNewest(resume, { forResume: true });
    const saved = unsaved ?? withRates(checkpoint!.config, resume);
    const summary = readSummary(resume);
    const hasFailed = summary?.status === "failed";
    const failedAfter = hasFailed ? checkpoint?.step ?? 0 : undefined;
    const config = resumeConfig(saved, pairs, { failedAfter, ended: summary?.until });
    const change = rateNote(saved, config, checkpoint?.step ?? 0);
    return { config: { ...config, resume }, checkpoint, experiment: "", change };
  }
  const experiment = name ?? QUICK_START;
  const base = (await loadExperiment(experiment)).config;
  const config = resolveDelta(base, pairs);
  if (config.name) requireNew(join(RUNS, config.name));
  return { config, checkpoint: null, experiment, change: null };
}

function introduce(
  config: RunConfig,
  dataset: Dataset,
  device: string,
  note: (line: string) => void,
): void {
  note(device);
  note(describeCosts(config));
  const entropy = dataset.unigramEntropy;
  note(
    `data        ${dataset.name}, ${dataset.vocabSize} tokens` +
      (entropy === null ? "" : `, unigram entropy ${entropy.toFixed(3)} nats`),
  );
  if (dataset.identity?.packages) note(`            ${describeIdentity(dataset.identity)}`);
  if (isTask(config.data)) note(`sample      ${sampleOf(config, dataset)}`);
}

/** The start of a task's first sequence. */
function sampleOf(config: RunConfig, dataset: Dataset): string {
  const tokens = dataset.batch("train", 0).tokens.subarray(0, config.seqLen);
  const text = taskText(config.data, tokens, config);
  return text.length > SHOWN ? `${text.slice(0, SHOWN)} …` : text;
}

if (import.meta.main) await runCommand(main);
