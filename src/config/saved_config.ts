/**
 * Configurations that were saved.
 *
 * @module
 */
import { type ConfigInput, resolveConfig, type RunConfig } from "./config.ts";
import { publishedMosa } from "./hugging_face.ts";
import { UserError } from "../errors.ts";

/**
 * The configuration in a file of a run.
 *
 * @param saved what was read
 * @param path its file, for the error
 * @throws {UserError} naming the file, if it is another program's, or no longer valid
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { savedConfig } from "./saved_config.ts";
 *
 * assert.equal(savedConfig({ hiddenSize: 8 }, "config.json").hiddenSize, 8);
 * assert.throws(() => savedConfig({ model_type: "gpt2" }, "config.json"), /config.json.*model_type/);
 * ```
 */
export function savedConfig(saved: object, path: string): RunConfig {
  try {
    const { stages } = saved as { stages?: unknown };
    if (stages !== undefined && !isStages(stages)) throw new UserError("stages is no list of them");
    return resolveConfig(
      { ...beforeCausal(saved), ...saved, resume: null, otherData: false } as ConfigInput,
    );
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    throw new UserError(
      `Cannot read ${path}: it is no configuration of latentk (${error.message})`,
    );
  }
}

/** What runs of mosa computed before these keys were there. */
function beforeCausal(saved: object): ConfigInput {
  return (saved as ConfigInput).attention === "mosa" ? publishedMosa : {};
}

function isStages(value: unknown): boolean {
  return Array.isArray(value) && value.length > 0 &&
    value.every((stage) => typeof stage?.name === "string");
}
