/**
 * Whole commands, disturbed again and again and gone on with until they are done: what comes of
 * them must be, bit for bit, what comes of one that was left in peace.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { AblationResults } from "../../src/ablate/results.ts";
import { isThere } from "../../src/files/files.ts";
import { readSummary } from "../../src/runs/run_folder.ts";
import { outcome, TEXT } from "../train_run.ts";
import { type Disturbance, VARIABLE } from "./disturb.ts";

/** A command whose results do not depend on when it was stopped. */
export interface Program {
  readonly name: string;
  /** Its words, the next time that it is started in a folder. */
  args(cwd: string): Promise<string[]>;
  /** What has come of it, without times. */
  results(cwd: string): Promise<unknown>;
}

/** How a command ended. */
export interface Ending {
  readonly code: number;
  readonly isKilled: boolean;
  readonly stderr: string;
}

/** The smallest model that has all there is to save, through all stages. */
const keys = {
  ...{ data: TEXT, hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 1, intermediateSize: 8 },
  ...{ batchSize: 1, seqLen: 16, kvLoraRank: 4, qkNopeHeadDim: 4, qkRopeHeadDim: 4, vHeadDim: 4 },
  ...{ indexHeadDim: 4, indexNHeads: 1, indexTopk: 4, evalBatches: 1, warmupSteps: 1 },
  ...{ logEvery: 2, saveEvery: 1, evalEvery: 4, keepCheckpoints: 1 },
  stages: [
    ...[{ name: "dense", steps: 6 }, { name: "warmup", steps: 3 }],
    ...[{ name: "twin", steps: 3, from: "dense" }, { name: "sparse", steps: 3, from: "warmup" }],
  ],
};

function command(name: string): string {
  return new URL(`../../src/commands/${name}.ts`, import.meta.url).pathname;
}

/** An experiment file in the folder, which both commands take. */
async function experiment(cwd: string, content: Record<string, unknown>): Promise<string> {
  const text = JSON.stringify({ question: "Does it survive?", ...content });
  await Deno.writeTextFile(join(cwd, "tiny.ts"), `export const experiment = ${text};\n`);
  return "./tiny.ts";
}

/** `train`, then `train resume=…` once there is a run. */
export function training(device: "cpu" | "webgpu"): Program {
  const folder = "runs/x";
  return {
    name: `training on ${device}`,
    async args(cwd) {
      const train = command("train");
      if (isThere(join(cwd, folder))) return [train, `resume=${folder}`];
      const config = { ...keys, sampleEvery: 5, sampleTokens: 2 };
      return [train, await experiment(cwd, { config }), "name=x", `device=${device}`];
    },
    async results(cwd) {
      const path = join(cwd, folder);
      const { status, final } = readSummary(path)!;
      return { status, final: timeless(final), ...await outcome(path) };
    },
  };
}

/** `ablate`: two runs with a shared beginning, and an evaluation of each. */
export const ablation: Program = {
  name: "ablation",
  async args(cwd) {
    const file = await experiment(cwd, {
      config: { ...keys, sampleTokens: 0 },
      variants: { few: { "sparse.indexTopk": 2 }, more: {} },
      evaluate: { "k=1": { indexTopk: 1 } },
    });
    return [command("ablate"), file, "device=cpu", "name=x"];
  },
  async results(cwd) {
    const folder = join(cwd, "runs/x");
    const results: AblationResults = JSON.parse(
      Deno.readTextFileSync(join(folder, "results.json")),
    );
    return await Promise.all(results.runs.map(async ({ folder: own, status, metrics }) => {
      assert.equal(status, "done", `${own} is ${status}`);
      return { run: own, final: timeless(metrics), ...await outcome(join(folder, own)) };
    }));
  },
};

function timeless<T>(values: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(values).filter(([name]) => !name.startsWith("time/")));
}

/**
 * Starts a program in a folder, where it begins or goes on.
 *
 * @param disturbance what happens to it; a number: killed so many milliseconds after its first
 * words; null: nothing
 */
export async function start(
  program: Program,
  cwd: string,
  disturbance: Disturbance | number | null,
): Promise<Ending> {
  const preload = new URL("disturb.ts", import.meta.url).pathname;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "--preload", preload, ...await program.args(cwd)],
    cwd,
    env: {
      [VARIABLE]: typeof disturbance === "object" && disturbance ? JSON.stringify(disturbance) : "",
    },
    ...{ stdin: "null", stdout: "null", stderr: "piped" },
  }).spawn();
  const decoder = new TextDecoder();
  let stderr = "";
  let timer: ReturnType<typeof setTimeout> | null = null;
  for await (const chunk of child.stderr) {
    stderr += decoder.decode(chunk, { stream: true });
    if (typeof disturbance !== "number") continue;
    timer ??= setTimeout(() => {
      try {
        child.kill("SIGKILL");
      } catch {
        // It was faster.
      }
    }, disturbance);
  }
  const { code, signal } = await child.status;
  if (timer !== null) clearTimeout(timer);
  return { code, isKilled: signal === "SIGKILL", stderr };
}

const undisturbed = new Map<string, Promise<unknown>>();

/** What comes of a program that nothing happens to. */
export function wholeResults(program: Program): Promise<unknown> {
  const known = undisturbed.get(program.name);
  if (known) return known;
  const made = inFolder(async (cwd) => {
    const { code, stderr } = await start(program, cwd, null);
    assert.equal(code, 0, stderr);
    return await program.results(cwd);
  });
  undisturbed.set(program.name, made);
  return made;
}

/** Does something in a folder of its own. */
export async function inFolder<T>(action: (cwd: string) => Promise<T>): Promise<T> {
  const cwd = await Deno.makeTempDir();
  try {
    return await action(cwd);
  } finally {
    await Deno.remove(cwd, { recursive: true });
  }
}
