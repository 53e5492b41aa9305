/**
 * What every suite of `deno task bench` gives: lines of results, and the rules of timing.
 *
 * @module
 */
import type { Device } from "../open_device.ts";
import { textTable } from "../text/text_table.ts";
import { formatBytes } from "../text/units.ts";
import { WARM_UP_MS } from "./run_kernels.ts";

/** One line of the output. Times are of one step, token, dispatch or start, in ms. */
export interface BenchResult {
  /** `step`, `decode`, `peer`, `startup` or `kernels`. */
  suite: string;
  /** What was timed, with its shape or stage. */
  name: string;
  /** The adapter's own name, or the CPU. */
  adapter: string;
  /** The middle one of all samples. */
  medianMs: number;
  /** The least one. */
  minMs: number;
  /** Floating-point operations, in 10⁹ a second. */
  gflops?: number;
  /** Bytes that must at least be moved, in 10⁹ a second. */
  gbps?: number;
  /** Part of the adapter's measured ceiling, of operations or bytes: the larger part. */
  share?: number;
  /** Tokens trained on, or generated, a second. */
  tokensPerSecond?: number;
  /** Memory of the engine on the device. */
  bytes?: number;
  /** Bytes of the cache that the token at the end of the context reads. */
  cacheBytes?: number;
  /** Losses before some steps, by step. */
  losses?: Record<string, number>;
}

/** What the suites are told; keys that are not theirs belong to the model's configuration. */
export interface BenchOptions {
  /** Presets to time; empty: those that suit the device. */
  presets: readonly string[];
  /** Stages to time; empty: all of the recipe. */
  stages: readonly string[];
  /** Tokens of context to decode at; empty: a few lengths up to the preset's. */
  contexts: readonly number[];
  /** Timed steps or tokens; null: as many as the suite finds enough. */
  steps: number | null;
  /** Processes that `startup` starts for a preset. */
  runs: number;
  /** `key=value` words for the model's configuration. */
  overrides: readonly string[];
}

/** Gives results one after the other, as soon as they are there. */
export type Suite = (device: Device, options: BenchOptions) => AsyncGenerator<BenchResult>;

/** Median and least of samples in ms, to a microsecond. */
export function summarizeTimes(samples: readonly number[]): { medianMs: number; minMs: number } {
  const sorted = [...samples].sort((a, b) => a - b);
  return { medianMs: rounded(sorted[sorted.length >> 1]), minMs: rounded(sorted[0]) };
}

/** Rounded to three decimals. */
export function rounded(value: number): number {
  return Math.round(value * 1000) / 1000;
}

/** The name of the device in results. */
export function adapterOf(device: Device): string {
  return device.gpu?.name ?? "cpu: tfjs wasm";
}

/** Whether the device computes on the CPU: smaller shapes, no clocks to raise. */
export function isSoftware({ gpu }: Device): boolean {
  return gpu?.capabilities.software ?? true;
}

/**
 * Runs `step` untimed: at least `least` times, and until a GPU that was idle has raised its
 * clocks.
 */
export async function warmUp(
  device: Device,
  least: number,
  step: () => Promise<void>,
): Promise<void> {
  const start = performance.now();
  for (
    let i = 0;
    i < least || (!isSoftware(device) && performance.now() - start < WARM_UP_MS);
    i++
  ) await step();
}

/** Results as a table for people. */
export function formatResults(results: readonly BenchResult[]): string {
  const rows = results.map((r) => [
    r.suite,
    r.name,
    `${r.medianMs.toFixed(3)} ms`,
    `${r.minMs.toFixed(3)} ms`,
    details(r),
  ]);
  rows.unshift(["suite", "name", "median", "least", ""]);
  return textTable(rows, (column) => column !== 2 && column !== 3);
}

function details(r: BenchResult): string {
  const parts: string[] = [];
  if (r.gflops) parts.push(`${r.gflops.toFixed(0)} GFLOP/s`);
  if (r.gbps) parts.push(`${r.gbps.toFixed(0)} GB/s`);
  if (r.share !== undefined) parts.push(`${(100 * r.share).toFixed(0)} % of the ceiling`);
  if (r.tokensPerSecond) parts.push(`${r.tokensPerSecond.toLocaleString("en-US")} tokens/s`);
  if (r.cacheBytes) parts.push(`${formatBytes(r.cacheBytes)} of cache read`);
  if (r.bytes) parts.push(`${(r.bytes / 2 ** 20).toFixed(0)} MiB`);
  if (r.losses) {
    const losses = Object.entries(r.losses).map(([step, loss]) => `${step}: ${loss.toFixed(4)}`);
    parts.push(`loss ${losses.join(", ")}`);
  }
  return parts.join(", ");
}
