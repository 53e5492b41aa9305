/**
 * Going on with a run: the configuration that it has then.
 *
 * @module
 */
import { join } from "node:path";
import {
  type ConfigKey,
  configKeys,
  parseOverrides,
  resolveConfig,
  type RunConfig,
} from "../config/config.ts";
import { UserError } from "../errors.ts";
import { isThere, readJson } from "../files/files.ts";
import { savedConfig } from "../config/saved_config.ts";
import type { Stage } from "../config/stage_fields.ts";
import { newestCheckpoint } from "../runs/checkpoint.ts";

/** The keys that a resumed run may change: they do not touch what is trained. */
const changeableOnResume: readonly ConfigKey[] = [
  "resume",
  "steps",
  "device",
  "recompute",
  "autotune",
  "profile",
  "logEvery",
  "evalEvery",
  "evalBatches",
  "saveEvery",
  "keepCheckpoints",
  "sampleEvery",
  "sampleTokens",
  "samplePrompt",
  "temperature",
  "measureEvery",
];

/**
 * The configuration of a run that was stopped before its first checkpoint, or null where there is
 * a checkpoint or no run. Such a run starts again from its beginning.
 */
export async function unsavedConfig(run: string): Promise<RunConfig | null> {
  if (await newestCheckpoint(run)) return null;
  const path = join(run, "config.json");
  const config = readJson(path);
  return config && isThere(join(run, "summary.json")) ? savedConfig(config, path) : null;
}

/**
 * The configuration of a run that goes on: that of its checkpoint with what was typed, which may
 * only change {@linkcode changeableOnResume}.
 *
 * @throws {UserError} naming the key, its old and its new value
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "../config/config.ts";
 * import { resumeConfig } from "./resume.ts";
 *
 * const saved = resolveConfig({ recipe: "dense", steps: 300 });
 * assert.equal(resumeConfig(saved, ["resume=runs/quickstart_001", "steps=600"]).steps, 600);
 * assert.throws(() => resumeConfig(saved, ["hiddenSize=128"]), /hiddenSize=128/);
 * ```
 */
export function resumeConfig(saved: RunConfig, overrides: readonly string[]): RunConfig {
  const typed = parseOverrides(overrides);
  for (const key of configKeys) {
    const value = typed[key];
    if (value === undefined || changeableOnResume.includes(key)) continue;
    if (String(value) === String(saved[key])) continue;
    throw new UserError(
      `Cannot resume with ${key}=${value ?? "none"}: the run was started with ` +
        `${key}=${saved[key] ?? "none"}; leave it out, or start a new run`,
    );
  }
  const config = resolveConfig(saved, overrides);
  const fixed = (stages: readonly Stage[]) =>
    JSON.stringify(stages.map((s, i) => i === stages.length - 1 ? { ...s, steps: 0 } : s));
  if (fixed(config.stages) !== fixed(saved.stages)) {
    throw new UserError(
      "Cannot resume with other stages: only the steps of the last one may be changed " +
        `(${saved.stages[saved.stages.length - 1].name}.steps=…); start a new run`,
    );
  }
  return config;
}
