/**
 * A model's parameters in a file of tensors.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import { UserError } from "../errors.ts";
import type { StoredTensor } from "../files/safetensors.ts";
import { firstNotFinite } from "./finite.ts";
import { modelParameters } from "./parameters.ts";

/**
 * The values of all parameters of a model, by name.
 *
 * @param tensors content of the file
 * @param options.file its path, for errors
 * @param options.prefixes each parameter is there once for each of them, before its name
 * @throws {UserError} if one is missing, has another shape or is not finite, or there are tensors of
 * another model
 */
export function savedParameters(
  tensors: ReadonlyMap<string, StoredTensor>,
  config: RunConfig,
  { file, prefixes = [""] }: { file: string; prefixes?: readonly string[] },
): Map<string, Float32Array> {
  const values = new Map<string, Float32Array>();
  for (const { name, shape } of modelParameters(config)) {
    for (const prefix of prefixes) {
      const found = tensors.get(prefix + name);
      if (!found) throw new UserError(`Cannot load ${file}: ${prefix}${name} is missing`);
      if (String(found.shape) !== String(shape) || !(found.data instanceof Float32Array)) {
        throw new UserError(
          `Cannot load ${file}: ${prefix}${name} is ${found.dtype} [${found.shape}], ` +
            `but the model needs F32 [${shape}]`,
        );
      }
      const at = firstNotFinite(found.data);
      if (at >= 0) {
        throw new UserError(
          `Cannot load ${file}: ${prefix}${name} holds ${found.data[at]} at ${at}; ` +
            "take an earlier checkpoint, or weights that are finite",
        );
      }
      values.set(prefix + name, found.data);
    }
  }
  for (const name of tensors.keys()) {
    // Both can be computed from the rest; some writers store them all the same.
    const isSpare = name.endsWith(".rotary_emb.inv_freq") ||
      config.tieWordEmbeddings && name === "lm_head.weight";
    if (values.has(name) || isSpare) continue;
    throw new UserError(`Cannot load ${file}: the model has no parameter ${name}`);
  }
  return values;
}
