/** Whole runs by the command line, for the tests of training. */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { EngineState } from "../src/engine.ts";
import { latestCheckpoint, loadCheckpoint } from "../src/runs/checkpoint.ts";
import { type MetricsRow, readMetrics } from "../src/runs/run_folder.ts";

/** The script of `deno task train`. */
export const CLI = new URL("../src/commands/train.ts", import.meta.url).pathname;
/** A text of some kilobytes. */
export const TEXT = new URL("fixtures/moby_excerpt.txt", import.meta.url).pathname;
/** A model small enough to train for a few steps in a moment. */
export const MODEL = [
  `data=${TEXT}`,
  "hiddenSize=32",
  "numHiddenLayers=1",
  "numAttentionHeads=2",
  "intermediateSize=48",
  "batchSize=2",
  "seqLen=32",
  "indexTopk=8",
  "logEvery=4",
  "evalEvery=30",
  "evalBatches=1",
  "saveEvery=9",
  "sampleEvery=45",
  "sampleTokens=5",
];
/** Of what a command prints. */
export const decoder = new TextDecoder();

/** A script of the repository, run in a folder. */
export function command(script: string, args: string[], cwd: string): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", script, ...args],
    cwd,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

/** Runs it to its end. */
export async function run(
  script: string,
  args: string[],
  cwd: string,
): Promise<{ code: number; stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await command(script, args, cwd).output();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Trains; returns the run folder. */
export async function trainIn(cwd: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(CLI, args, cwd);
  assert.equal(code, 0, stderr);
  return join(cwd, stdout.trim().split("\n").at(-1)!);
}

/** Everything of a run that must not depend on when it was stopped. */
export interface RunOutcome {
  readonly step: number;
  readonly state: EngineState;
  /** The rows of the log without their times. */
  readonly metrics: Record<string, number | null>[];
  readonly samples: string;
}

/** Reads it from the run folder. */
export async function outcome(folder: string): Promise<RunOutcome> {
  const timeless = ({ t: _, ...row }: MetricsRow) =>
    Object.fromEntries(Object.entries(row).filter(([name]) => !name.startsWith("time/")));
  const { state, step } = await loadCheckpoint(await latestCheckpoint(folder));
  return {
    step,
    state,
    metrics: readMetrics(join(folder, "metrics.jsonl")).map(timeless),
    samples: Deno.readTextFileSync(join(folder, "samples.txt")),
  };
}
