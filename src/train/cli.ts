/**
 * `deno task train [experiment] [key=value …]`
 *
 * @module
 */
import { exitCodes, runCommand, splitArguments } from "../command.ts";
import { describeFields, parseOverrides, resolveConfig, type RunConfig } from "../config.ts";
import { describeCosts } from "../costs.ts";
import { type Dataset, openDataset } from "../data/dataset.ts";
import { UserError } from "../errors.ts";
import { experimentNames, loadExperiment } from "../experiment.ts";
import { openDevice } from "../open_device.ts";
import { stageSpans } from "../stages.ts";
import {
  type Checkpoint,
  latestCheckpoint,
  loadCheckpoint,
  resumeConfig,
  unsavedConfig,
} from "./checkpoint.ts";
import { describeEnvironment } from "./environment.ts";
import { Diverged, train } from "./loop.ts";
import { Progress } from "./progress.ts";
import { RunFolder } from "./run_folder.ts";

function help(): string {
  return `usage: deno task train [experiment] [key=value ...]

  deno task train                                   the quick start
  deno task train preset=tiny data='texts/*.txt' steps=2000 lr=1e-3
  deno task train resume=runs/quickstart_001        go on where it last saved

The run folder is printed last. Ctrl-C saves and stops. Experiments: ${
    experimentNames().join(", ")
  }.

${describeFields()}`;
}

async function main(args: string[]): Promise<number> {
  const { flags, pairs, words } = splitArguments(args, []);
  if (flags.has("--help")) {
    console.log(help());
    return exitCodes.done;
  }
  if (words.length > 1) {
    throw new UserError(`Cannot train ${words.join(" and ")} at once: give one experiment`);
  }
  const { config: asked, checkpoint, experiment } = await resolveRun(words[0], pairs);
  const dataset = await openDataset({
    ...asked,
    taskOptions: asked,
    ...(checkpoint?.tokenizer ? { tokenizerJson: checkpoint.tokenizer as object } : {}),
  });
  const config = withVocabulary(asked, dataset);
  const progress = new Progress(stageSpans(config.stages).at(-1)!.end);
  const note = (line: string) => progress.note(line);
  using device = await openDevice(config.device, { note });
  const { gpu } = device;
  let run: RunFolder | null = null;
  const openRun = () => {
    const logs = checkpoint?.logs ?? { metrics: 0, samples: 0 };
    run = config.resume
      ? RunFolder.resume(config.resume, { config, logs })
      : RunFolder.create(config, { experiment });
    run.writeEnvironment(describeEnvironment({
      backend: gpu ? "webgpu" : "cpu",
      adapter: gpu?.name ?? "tfjs wasm",
      features: gpu?.features ?? [],
      limits: gpu?.limits ?? {},
      seed: config.seed,
      argv: args,
    }));
    return run;
  };
  introduce(config, dataset, gpu ? `webgpu: ${gpu.name}` : "cpu: tfjs wasm", note);

  let interrupted = false;
  const interrupt = () => {
    if (interrupted) Deno.exit(exitCodes.interrupted);
    interrupted = true;
    progress.note("interrupted: saving, again to stop at once");
  };
  Deno.addSignalListener("SIGINT", interrupt);
  try {
    const job = { config, dataset, device, openRun, progress, checkpoint };
    const { status, step } = await train({ ...job, shouldStop: () => interrupted });
    const { path } = run!;
    progress.done();
    if (status === "interrupted") {
      progress.note(`stopped after step ${step}; go on with resume=${path}`);
    }
    console.log(path);
    return status === "interrupted" ? exitCodes.interrupted : exitCodes.done;
  } catch (error) {
    progress.done();
    const message = error instanceof Error ? error.message : String(error);
    const started = run as RunFolder | null;
    started?.finish("failed", { step: started.step, error: message });
    if (!(error instanceof Diverged)) throw error;
    console.error(`error: ${message}`);
    console.log(started!.path);
    return exitCodes.failed;
  } finally {
    Deno.removeSignalListener("SIGINT", interrupt);
  }
}

async function resolveRun(name: string | undefined, pairs: readonly string[]): Promise<{
  config: RunConfig;
  checkpoint: Checkpoint | null;
  experiment: string;
}> {
  const { resume } = parseOverrides(pairs);
  if (resume) {
    if (name) throw new UserError(`Cannot start experiment "${name}" with resume=: leave one out`);
    const unsaved = await unsavedConfig(resume);
    const checkpoint = unsaved ? null : await loadCheckpoint(await latestCheckpoint(resume));
    const config = resumeConfig(unsaved ?? checkpoint!.config, pairs);
    return { config: { ...config, resume }, checkpoint, experiment: "" };
  }
  const experiment = name ?? "quickstart";
  const base = (await loadExperiment(experiment)).config;
  return { config: resolveConfig(base, pairs), checkpoint: null, experiment };
}

/** The vocabulary is the dataset's; a larger one may be asked for, a smaller one cannot work. */
function withVocabulary(config: RunConfig, dataset: Dataset): RunConfig {
  const { vocabSize } = dataset;
  if (config.vocabSize > 0 && config.vocabSize < vocabSize) {
    throw new UserError(
      `Cannot use vocabSize=${config.vocabSize}: ${dataset.name} has ${vocabSize} tokens; ` +
        "leave it out, or raise it",
    );
  }
  return { ...config, vocabSize: Math.max(config.vocabSize, vocabSize) };
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
}

if (import.meta.main) await runCommand(main);
