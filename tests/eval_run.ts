/** Runs to evaluate, and evaluations of them by the command line. */
import assert from "node:assert/strict";
import type { EvaluationReport } from "../src/eval/evaluate_model.ts";
import { run, TEXT } from "./train_run.ts";

/** The script of `deno task eval`. */
export const EVAL = new URL("../src/commands/eval.ts", import.meta.url).pathname;

/** A model of transformers with its weights. */
export const GOLDEN = new URL("golden/even", import.meta.url).pathname;

/** A model small enough to train for a few steps in a moment. */
export const SMALL = [
  "hiddenSize=32",
  "numHiddenLayers=2",
  "numAttentionHeads=2",
  "intermediateSize=48",
  "indexTopk=8",
  "seqLen=32",
  "batchSize=2",
  "steps=4",
  "evalBatches=1",
  "sampleTokens=0",
  // Far from where it starts, so that no two selectors give the same loss.
  "initializerRange=0.3",
  "keepCheckpoints=3",
];
/** All stages of the recipe. */
export const THREE_STAGES = [...SMALL, "warmup.steps=4", "sparse.steps=4"];
/** The same on the bytes of a text. */
export const TEXT_RUN = [...THREE_STAGES, `data=${TEXT}`, "tokenizer=byte"];

/** The report of a run. */
export async function evaluated(cwd: string, ...args: string[]): Promise<EvaluationReport> {
  const { code, stdout, stderr } = await run(EVAL, [...args, "--json"], cwd);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout);
}

/** Expects the same number, but for rounding. */
export function near(got: number, want: number, relative = 1e-4, what = ""): void {
  const difference = Math.abs(got - want);
  assert(difference <= relative * Math.abs(want) + 1e-7, `${what}: ${got} instead of ${want}`);
}
