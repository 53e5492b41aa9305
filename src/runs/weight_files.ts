/**
 * The weights of a folder in Hugging Face's layout: one `model.safetensors`, or several files and
 * `model.safetensors.index.json`, which tells the file of each tensor.
 *
 * @module
 */
import { basename, join } from "node:path";
import { UserError } from "../errors.ts";
import { isThere, readJson } from "../files/files.ts";
import { readSafetensors, type StoredTensor } from "../files/safetensors.ts";

const WHOLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** All tensors of a folder, and the file that stands for them in errors. */
export interface Weights {
  readonly file: string;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
}

/** Whether a folder has weights in Hugging Face's layout. */
export function hasWeights(folder: string): boolean {
  return isThere(join(folder, WHOLE)) || isThere(join(folder, INDEX));
}

/**
 * Reads all weights of a folder. Where there are both, the one file goes before the index, as in
 * transformers.
 *
 * @throws {UserError} if a file is missing or damaged, or the index and its files say different
 * things
 */
export async function readWeights(folder: string): Promise<Weights> {
  const whole = join(folder, WHOLE);
  if (isThere(whole)) return { file: whole, tensors: (await readSafetensors(whole)).tensors };
  const index = join(folder, INDEX);
  const fileOf = weightMap(index);
  const tensors = new Map<string, StoredTensor>();
  for (const shard of new Set(fileOf.values())) {
    const file = join(folder, shard);
    for (const [name, tensor] of (await readSafetensors(file)).tensors) {
      if (fileOf.get(name) !== shard) {
        throw new UserError(
          `Cannot read ${file}: it has ${name}, which ${INDEX} finds in ${
            fileOf.get(name) ?? "no file"
          }`,
        );
      }
      tensors.set(name, tensor);
    }
  }
  for (const [name, shard] of fileOf) {
    if (tensors.has(name)) continue;
    throw new UserError(
      `Cannot read ${join(folder, shard)}: ${name}, which ${INDEX} finds there, is missing`,
    );
  }
  return { file: index, tensors };
}

/** The file of each tensor; all are beside the index. */
function weightMap(index: string): Map<string, string> {
  const map = readJson(index)?.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map)) {
    throw new UserError(`Cannot read ${index}: it has no weight_map`);
  }
  const entries = Object.entries(map);
  for (const [name, shard] of entries) {
    if (typeof shard === "string" && shard.endsWith(".safetensors") && basename(shard) === shard) {
      continue;
    }
    throw new UserError(
      `Cannot read ${index}: the file of ${name} is ${JSON.stringify(shard)}, not a ` +
        ".safetensors file beside it",
    );
  }
  return new Map(entries);
}
