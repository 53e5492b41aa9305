/**
 * Which variants of kernels are the fastest on an adapter: found by a short trial when a plan needs
 * them for the first time, and kept on disk. All variants give the same bits, so this changes how
 * fast a run is and nothing else; a variant that does differ on some driver is never taken.
 *
 * @module
 */
import type { Gpu } from "../device/device.ts";
import type { Dispatch } from "../../graph/plan_recorder.ts";
import { type Prepared, Trial } from "./trial.ts";
import { type Choices, readChoices, tuningPath, writeChoices } from "./tuning_cache.ts";

/** How tuning is done. The defaults are for training; others are for tests. */
export interface TuningOptions {
  /** The file of known choices, null for none; default {@linkcode tuningPath}. */
  readonly path?: string | null;
  /** Milliseconds that the trials of one plan may take; default: more for plans with more work. */
  readonly budgetMs?: number;
  /** Whether to measure by GPU timestamps; default: where the adapter has them. */
  readonly timestamps?: boolean;
}

/** Least time for one plan; a trial that has begun is finished. */
const BUDGET_MS = 1400;
/** Runs of a plan, at {@linkcode RATE}, that trials may take as well: a training run is thousands. */
const WORTH = 40;
/** Floating-point operations in a millisecond on an H100. */
const RATE = 3e10;
/**
 * Part of it for making pipelines, 50-100 ms each on an H100. They are made first, all in a row:
 * meanwhile the GPU drops its clocks.
 */
const PIPELINES = 0.5;
/** What an H100 needs to raise its clocks again. */
const WARM_UP_MS = 300;
/** Samples of each variant, which take turns; the least counts. */
const SAMPLES = 3;
/** A sample is about this long. */
const SAMPLE_MS = 1;
/** Another variant has to be faster by this factor: it is often one more pipeline. */
const MARGIN = 0.98;
/** What has less than this share of a plan's operations is not worth a trial. */
const LEAST_SHARE = 0.01;

/** A dispatch to try the variants of, and those variants. */
interface Candidates {
  readonly key: string;
  readonly names: readonly string[];
  /** Null for one that the device refuses. */
  readonly prepared: readonly (Prepared | null)[];
}

const tunings = new WeakMap<Gpu, Tuning>();

/** What is known of a device, for all engines on it. */
export function tuningOf(gpu: Gpu): Tuning {
  let tuning = tunings.get(gpu);
  if (!tuning) tunings.set(gpu, tuning = new Tuning(gpu));
  return tuning;
}

/** The fastest variants of a device's kernels, as far as they are known. */
export class Tuning {
  readonly #gpu: Gpu;
  readonly #path: string | null;
  readonly #budgetMs: number | null;
  readonly #timestamps: boolean;
  #known: Choices | null = null;

  /** For one device; {@linkcode tuningOf} is what engines share. */
  constructor(gpu: Gpu, options: TuningOptions = {}) {
    this.#gpu = gpu;
    this.#path = options.path === undefined ? tuningPath() : options.path;
    this.#budgetMs = options.budgetMs ?? null;
    this.#timestamps = options.timestamps ?? gpu.features.includes("timestamp-query");
  }

  /** Names of the fastest variants by key. The file is read when they are first asked for. */
  get choices(): ReadonlyMap<string, string> {
    return this.#choices();
  }

  /** The same dispatches with the fastest kernels that are known. */
  apply(dispatches: readonly Dispatch[]): Dispatch[] {
    return dispatches.map((dispatch) => {
      const { variants } = dispatch.kernel;
      if (!variants || variants.names.length === 1) return dispatch;
      const name = this.#choices().get(variants.key);
      if (!name || name === variants.names[0] || !variants.names.includes(name)) return dispatch;
      return { ...dispatch, kernel: variants.make(name) };
    });
  }

  /**
   * Finds the fastest variants of a plan's kernels. Those with the most work come first; what the
   * budget does not reach keeps its most promising variant, until a later plan goes on from there.
   */
  async tune(dispatches: readonly Dispatch[]): Promise<void> {
    const start = performance.now();
    const work = dispatches.reduce((sum, { kernel }) => sum + kernel.flops, 0);
    const budgetMs = this.#budgetMs ?? BUDGET_MS + WORTH * work / RATE;
    const isBefore = (part: number) => performance.now() - start < part * budgetMs;
    const unknown = this.#unknown(dispatches, work);
    if (!unknown.length || budgetMs <= 0) return;
    using trial = new Trial(this.#gpu, unknown, this.#timestamps);
    const ready: Candidates[] = [];
    for (const dispatch of unknown) {
      // One at least, or nothing would ever be found where pipelines take long.
      if (ready.length && !isBefore(PIPELINES)) break;
      const { key, names, make } = dispatch.kernel.variants!;
      const prepared: (Prepared | null)[] = [];
      for (const name of names) {
        prepared.push(await trial.prepare({ ...dispatch, kernel: make(name) }));
      }
      ready.push({ key, names, prepared });
    }
    await warmUp(trial, ready.flatMap(({ prepared }) => prepared).find((p) => p !== null));
    const found: Choices = new Map();
    for (const [i, { key, names, prepared }] of ready.entries()) {
      if (i > 0 && !isBefore(1)) break;
      found.set(key, names[await fastest(trial, prepared)]);
    }
    await this.#gpu.settle();
    for (const [key, name] of found) this.#choices().set(key, name);
    if (this.#path) writeChoices(this.#path, tuningKey(this.#gpu), found);
  }

  #choices(): Choices {
    return this.#known ??= this.#path
      ? readChoices(this.#path, tuningKey(this.#gpu))
      : new Map<string, string>();
  }

  /** The first dispatch of each key that is worth a trial, those with the most work first. */
  #unknown(dispatches: readonly Dispatch[], work: number): Dispatch[] {
    const flops = new Map<string, number>();
    const first = new Map<string, Dispatch>();
    for (const dispatch of dispatches) {
      const { kernel } = dispatch;
      const key = kernel.variants?.key;
      if (key === undefined || kernel.variants!.names.length === 1) continue;
      if (this.#choices().has(key)) continue;
      if (!first.has(key)) first.set(key, dispatch);
      flops.set(key, (flops.get(key) ?? 0) + kernel.flops);
    }
    return [...flops]
      .filter(([, own]) => own >= LEAST_SHARE * work)
      .sort((a, b) => b[1] - a[1])
      .map(([key]) => first.get(key)!);
  }
}

/** The adapter as the file knows it. Deno tells nothing of the driver but what is in the name. */
export function tuningKey(gpu: Gpu): string {
  const { vendor, device } = gpu.device.adapterInfo;
  return `${gpu.name}, ${vendor}:${device}, Deno ${Deno.version.deno}`;
}

async function warmUp(trial: Trial, prepared: Prepared | undefined): Promise<void> {
  if (!prepared) return;
  const start = performance.now();
  let times = 1;
  while (performance.now() - start < WARM_UP_MS) {
    times = repeats(await trial.time(prepared, times), 10);
  }
}

/** How many dispatches of `ms` make a sample, within what is soon encoded. */
function repeats(ms: number, sampleMs: number): number {
  return Math.min(1000, Math.max(1, Math.ceil(sampleMs / ms)));
}

/** Index of the variant that takes the least time, of those with the bits of the first. */
async function fastest(trial: Trial, variants: readonly (Prepared | null)[]): Promise<number> {
  // A first one that is refused will be reported when the plan is made.
  if (!variants[0]) return 0;
  const bits = await trial.bits(variants[0]);
  const times: number[] = [];
  const least: number[] = [];
  for (const variant of variants) {
    const isSame = variant !== null && areEqual(await trial.bits(variant), bits);
    times.push(isSame ? repeats(await trial.time(variant, 1), SAMPLE_MS) : 0);
    least.push(Infinity);
  }
  for (let sample = 0; sample < SAMPLES; sample++) {
    for (const [i, variant] of variants.entries()) {
      if (times[i]) least[i] = Math.min(least[i], await trial.time(variant!, times[i]));
    }
  }
  const best = least.indexOf(Math.min(...least));
  return least[best] < MARGIN * least[0] ? best : 0;
}

function areEqual(a: Uint32Array, b: Uint32Array): boolean {
  return a.every((value, i) => value === b[i]);
}
