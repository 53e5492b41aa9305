/**
 * Runs an ablation: one run after the other in one process, on one device.
 *
 * @module
 */
import { FolderLock } from "../files/lock.ts";
import { dirname, join } from "node:path";
import type { RunConfig } from "../config/config.ts";
import { requireRoom, roomOf } from "../costs/room.ts";
import type { DataIdentity } from "../data/identity.ts";
import { GpuError, WriteError } from "../errors.ts";
import { type Device, openDevice } from "../open_device.ts";
import { readState } from "../runs/checkpoint_files.ts";
import { keepLatestCheckpoint, latestCheckpoint, newestCheckpoint } from "../runs/checkpoint.ts";
import { loadNewest } from "../runs/newest_checkpoint.ts";
import { formatDuration } from "../train/progress.ts";
import { startRun } from "../train/run.ts";
import { isThere, writing } from "../files/files.ts";
import { pretty, readIdentity, writeAside } from "../runs/run_folder.ts";
import { AblationProgress } from "./ablation_progress.ts";
import {
  commitOf,
  DEFAULT_METRICS,
  doneRun,
  type Failure,
  recordedAdapter,
  resultsOf,
  runPath,
  undoneRun,
} from "./collect.ts";
import { evaluateRun, missingEvaluations } from "./evaluations.ts";
import { requireOwnFolder } from "./folder.ts";
import type { AblationPlan, PlannedRun } from "./plan.ts";
import type { AblationResults, RunResult } from "./results.ts";
import { RunData } from "./run_data.ts";
import { configOf, removeBegun, requireSame, stateOf } from "./run_state.ts";
import { startFromTrunk } from "./start_from.ts";
import { assignTrunks, type Trunk } from "./trunks.ts";

/** An ablation to be run. */
export interface AblationJob {
  /** Its name. */
  readonly experiment: string;
  /** `real` or a size that the experiment names. */
  readonly size: string;
  /** Its runs in that size. */
  readonly plan: AblationPlan;
  /** Its folder. */
  readonly folder: string;
  /** The words of the command. */
  readonly argv: readonly string[];
  /** Asked between steps and runs; true saves and stops. */
  readonly shouldStop: () => boolean;
}

/** A run or trunk to be trained. */
interface Part {
  readonly name: string;
  readonly folder: string;
  readonly config: RunConfig;
  readonly parent: Trunk | null;
  readonly until?: number;
}

/** How the training of a part ended. */
type Ending = "done" | "stopped" | Failure;

/**
 * Runs what is missing, goes on with what was stopped, and writes `results.json` after each run.
 *
 * @returns the results; `finished` is false where it was stopped
 * @throws {UserError} before anything is written, if a folder holds something else, data cannot be
 * read, or there is no such device
 */
export async function runAblation(job: AblationJob): Promise<AblationResults> {
  requireOwnFolder(job.folder, job);
  using lock = isThere(job.folder) ? lockOf(job) : null;
  using runner = new Runner(job);
  return await runner.run(lock === null);
}

function lockOf({ folder }: Pick<AblationJob, "folder">): FolderLock {
  return FolderLock.take(folder, { action: `run in ${folder}`, note: console.error });
}

class Runner implements Disposable {
  #lock: FolderLock | null = null;
  readonly #job: AblationJob;
  readonly #runs: readonly PlannedRun[];
  readonly #trunks: readonly (Trunk | null)[];
  readonly #data = new RunData();
  readonly #results = new Map<string, RunResult>();
  /** The texts of the runs that are done, by `data`. */
  readonly #texts: Record<string, DataIdentity> = {};
  /** Trunks and runs that failed in this process or diverged in an earlier one. */
  readonly #failures = new Map<string, Failure>();
  #device: Device | null = null;
  #progress = new AblationProgress({ runs: 0, done: 0 });
  #adapter: string;
  readonly #git: string | null;

  constructor(job: AblationJob) {
    this.#job = job;
    this.#runs = job.plan.runs;
    this.#trunks = assignTrunks(job.plan.runs);
    this.#adapter = recordedAdapter(job.folder);
    this.#git = commitOf();
  }

  /** @param locks whether the folder is new, and its lock still to be taken */
  async run(locks: boolean): Promise<AblationResults> {
    const pending = await this.#pending();
    if (pending.length) {
      await this.#data.check(pending.map(({ config }) => config));
      await this.#requireSameData();
      await this.#open(pending[0].config);
      for (const { config } of pending) requireRoom(config, "train", roomOf(this.#device));
    }
    const { folder } = this.#job;
    writing(folder, () => Deno.mkdirSync(folder, { recursive: true }));
    if (locks) this.#lock = lockOf(this.#job);
    // It tells whose folder this is, from the start.
    this.#write();
    try {
      for (const run of pending) {
        if (this.#job.shouldStop()) break;
        const started = performance.now();
        const ending = await this.#trainRun(run);
        if (ending === "stopped") break;
        this.#progress.finish({ isRun: true });
        this.#progress.say(this.#sayOf(run, (performance.now() - started) / 1000));
        this.#write();
      }
    } finally {
      this.#progress.done();
    }
    return this.#write();
  }

  [Symbol.dispose](): void {
    this.#device?.[Symbol.dispose]();
    this.#lock?.[Symbol.dispose]();
  }

  #path(part: Trunk | PlannedRun): string {
    const own = "until" in part ? `trunks/${part.name}` : runPath(part);
    return join(this.#job.folder, own);
  }

  #partOf(run: PlannedRun): Part {
    const parent = this.#trunks[this.#runs.indexOf(run)];
    return { name: run.name, folder: this.#path(run), config: run.config, parent };
  }

  /** Refuses to add runs to those that were made with another text. */
  async #requireSameData(): Promise<void> {
    for (const run of this.#runs) {
      const newest = await newestCheckpoint(this.#path(run));
      if (!newest) continue;
      const action = `go on in ${this.#path(run)}`;
      this.#data.requireSame(run.config.data, readState(newest).data, action);
    }
  }

  /** The runs that are not done; plans their steps. */
  async #pending(): Promise<PlannedRun[]> {
    for (const run of this.#runs) requireSame(this.#path(run), run.config);
    const pending: PlannedRun[] = [];
    const { evaluate = {} } = this.#job.plan.experiment;
    for (const run of this.#runs) {
      const folder = this.#path(run);
      const { status, summary } = await stateOf(folder);
      if (status === "diverged") {
        this.#failures.set(run.name, { error: summary!.error!, step: summary!.step });
      } else if (status === "done" && !missingEvaluations(folder, evaluate).length) {
        this.#keep(run);
      } else {
        pending.push(run);
      }
    }
    const done = this.#runs.length - pending.length;
    this.#progress = new AblationProgress({ runs: this.#runs.length, done });
    const planned = new Set<string>();
    for (const run of pending) await this.#planSteps(this.#partOf(run), planned);
    return pending;
  }

  async #planSteps(part: Part, planned: Set<string>): Promise<void> {
    if (planned.has(part.name)) return;
    planned.add(part.name);
    const { name, folder, config, parent, until } = part;
    const { status } = await stateOf(folder);
    if (status === "done" || status === "diverged") return;
    if (status === "started") {
      const from = Number((await latestCheckpoint(folder)).match(/\d+$/)![0]);
      this.#progress.plan(name, { config, from, until });
    } else {
      this.#progress.plan(name, { config, from: parent?.until ?? 0, until });
      if (parent) await this.#planSteps(this.#trunkPart(parent), planned);
    }
  }

  #trunkPart(trunk: Trunk): Part {
    const { name, config, parent, until } = trunk;
    return { name, folder: this.#path(trunk), config, parent, until };
  }

  /** Trains and evaluates a run. A failure of its own is kept and does not end the others. */
  async #trainRun(run: PlannedRun): Promise<Ending> {
    const part = this.#partOf(run);
    const ending = await this.#train(part);
    if (ending === "stopped") return ending;
    if (ending !== "done") {
      this.#failures.set(run.name, ending);
      return ending;
    }
    const { evaluate = {} } = this.#job.plan.experiment;
    for (const [name, keys] of missingEvaluations(part.folder, evaluate)) {
      if (this.#job.shouldStop()) return "stopped";
      const { config } = run;
      const shared = { device: this.#device!, data: this.#data };
      const failure = await evaluateRun(part.folder, { name, keys, config, ...shared })
        .then(() => null, asFailure);
      if (!failure) continue;
      this.#failures.set(run.name, { error: `Evaluation ${name}: ${failure.error}` });
      return failure;
    }
    this.#keep(run);
    return "done";
  }

  /** Trains a part, its trunks before it. */
  async #train(part: Part): Promise<Ending> {
    const known = this.#failures.get(part.name);
    if (known) return known;
    const { status, summary } = await stateOf(part.folder);
    if (status === "done") return "done";
    if (status === "diverged") return { error: summary!.error!, step: summary!.step };
    if (status === "new" && part.parent) {
      const ending = await this.#train(this.#trunkPart(part.parent));
      if (ending !== "done") {
        if (ending !== "stopped") this.#failures.set(part.parent.name, ending);
        return ending;
      }
    }
    if (this.#job.shouldStop()) return "stopped";
    const ending = await this.#trainSteps(part, status === "new").catch(asFailure);
    if (ending === "done" && part.until !== undefined) this.#progress.finish({ isRun: false });
    return ending;
  }

  async #trainSteps(part: Part, isNew: boolean): Promise<Ending> {
    const { name, folder, parent, until } = part;
    const { config, dataset } = await this.#data.open(part.config);
    if (isNew) {
      // What is there was stopped before its first checkpoint.
      removeBegun(folder);
      const pathOf = (trunk: Trunk) => this.#path(trunk);
      if (parent) await startFromTrunk(folder, { config, trunk: parent, pathOf });
    }
    // Before it is read, so that nobody writes into it until all of it is done.
    using lock = isThere(folder) ? lockOf({ folder }) : null;
    const checkpoint = isNew && !parent
      ? null
      : await loadNewest(folder, { forResume: true, note: (line) => this.#progress.say(line) });
    // A trunk may have been begun for another run.
    const own = until === undefined ? config : checkpoint?.config ?? config;
    this.#progress.start(name, checkpoint?.step ?? 0);
    const { status, step, error } = await startRun({
      config: { ...own, name, resume: checkpoint ? folder : null },
      ...{ dataset, checkpoint, until, lock },
      device: this.#device!,
      progress: this.#progress,
      experiment: this.#job.experiment,
      root: dirname(folder),
      argv: this.#job.argv,
      shouldStop: this.#job.shouldStop,
    });
    if (status === "done") {
      try {
        using _own = lock ? null : lockOf({ folder });
        // Those that its stages started from are in the trunks, or not needed any more.
        await keepLatestCheckpoint(folder, own);
      } catch (error) {
        // The run is as done as with fewer of them.
        const reason = error instanceof Error ? error.message : String(error);
        this.#progress.say(`older checkpoints of ${name} stay: ${reason}`);
      }
      return "done";
    }
    return status === "interrupted" ? "stopped" : { error: error!, step };
  }

  async #open(config: RunConfig): Promise<void> {
    const note = (line: string) => this.#progress.say(line);
    this.#device = await openDevice(config.device, { note });
    const { gpu } = this.#device;
    this.#adapter = gpu?.name ?? "tfjs wasm";
    note(gpu ? `webgpu: ${gpu.name}` : "cpu: tfjs wasm");
    const { length } = this.#runs;
    const trunks = new Set(this.#trunks).size - Number(this.#trunks.includes(null));
    note(`${length} runs${trunks ? `, ${trunks} shared beginnings` : ""}`);
  }

  #keep(run: PlannedRun): void {
    const config = configOf(this.#path(run))!;
    this.#results.set(run.name, doneRun(this.#job.folder, run, config));
    const text = Object.hasOwn(this.#texts, config.data) ? null : readIdentity(this.#path(run));
    if (text) this.#texts[config.data] = text;
  }

  #sayOf({ name }: PlannedRun, seconds: number): string {
    const failure = this.#failures.get(name);
    if (failure) return `${name} failed: ${failure.error}`;
    const { metrics } = this.#results.get(name)!;
    const [main] = this.#job.plan.experiment.tabulate ?? DEFAULT_METRICS;
    const value = metrics[main] === undefined ? "" : `: ${main} ${metrics[main].toFixed(4)}`;
    return `${name} done in ${formatDuration(seconds)}${value}`;
  }

  #write(): AblationResults {
    const { experiment, size, plan, folder } = this.#job;
    const runs = this.#runs.map((run) =>
      this.#results.get(run.name) ?? undoneRun(run, this.#failures.get(run.name) ?? null)
    );
    const about = { experiment, size, adapter: this.#adapter, git: this.#git, data: this.#texts };
    const results = resultsOf(plan, { ...about, runs });
    writeAside(join(folder, "results.json"), pretty(results));
    return results;
  }
}

/** @throws what the other runs would only meet, too: a GPU that fails, a full disk */
function asFailure(error: unknown): Failure {
  if (error instanceof GpuError) {
    const own = error.cause instanceof GpuError ? error.cause : error;
    throw new GpuError(`Cannot go on: ${own.message}; the same command goes on`, { cause: own });
  }
  if (error instanceof WriteError) throw error;
  return { error: error instanceof Error ? error.message : String(error) };
}
