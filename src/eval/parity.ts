/**
 * Compares this implementation with golden vectors made by Hugging Face transformers.
 *
 * A case is a folder with `config.json`, `weights.safetensors` and `golden.safetensors`; the
 * latter holds `input_ids [B, T]`, `dense.logits`, `dense.loss` and `dense.grad.<parameter>`.
 *
 * @module
 */
import { basename, join } from "node:path";
import { resolveConfig, type RunConfig } from "../config.ts";
import type { Batch } from "../data/dataset.ts";
import { UserError } from "../errors.ts";
import { fromHuggingFace } from "../hugging_face.ts";
import { modelParameters } from "../model/parameters.ts";
import { languageModel } from "../model/transformer.ts";
import { openDevice } from "../open_device.ts";
import { readSafetensors, type StoredTensor } from "../safetensors.ts";

/** Relative errors allowed: ‖ours − golden‖ / ‖golden‖ of each tensor. */
export const tolerances = { forward: 1e-5, gradient: 1e-4 } as const;

/** One compared tensor. */
export interface ParityTensor {
  /** Its name in `golden.safetensors`. */
  readonly name: string;
  /** ‖ours − golden‖ / ‖golden‖. */
  readonly relative: number;
  /** The largest `relative` allowed. */
  readonly tolerance: number;
}

/** The outcome of a case. */
export interface ParityCase {
  /** Name of the folder. */
  readonly case: string;
  /** What computed our side. */
  readonly device: string;
  /** Logits, loss, and the gradient of every parameter. */
  readonly tensors: readonly ParityTensor[];
}

/** Whether every tensor is within its tolerance. */
export function passes({ tensors }: ParityCase): boolean {
  return tensors.length > 0 && tensors.every(({ relative, tolerance }) => relative <= tolerance);
}

/** The tensor that comes nearest to its tolerance, or is furthest beyond. */
export function worst({ tensors }: ParityCase): ParityTensor {
  return tensors.reduce((a, b) => a.relative / a.tolerance >= b.relative / b.tolerance ? a : b);
}

/**
 * Compares one case: logits, loss and the gradient of every parameter.
 *
 * @throws {UserError} if the folder lacks a file or a tensor
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { compareWithGolden, passes, worst } from "./parity.ts";
 *
 * const outcome = await compareWithGolden("tests/golden/even", { device: "cpu" });
 * assert(passes(outcome), worst(outcome).name);
 * ```
 */
export async function compareWithGolden(
  folder: string,
  options: { device?: RunConfig["device"]; note?: (line: string) => void } = {},
): Promise<ParityCase> {
  const json = await readJson(join(folder, "config.json"));
  const weights = (await readSafetensors(join(folder, "weights.safetensors"))).tensors;
  const golden = (await readSafetensors(join(folder, "golden.safetensors"))).tensors;
  const want = (name: string): StoredTensor => {
    const tensor = golden.get(name);
    if (!tensor) throw new UserError(`Cannot compare ${folder}: golden.safetensors has no ${name}`);
    return tensor;
  };
  const ids = want("input_ids");
  const [batchSize, seqLen] = ids.shape;
  const config = resolveConfig({
    ...fromHuggingFace(json),
    recipe: "dense",
    device: options.device ?? "auto",
    batchSize,
    seqLen,
  });
  const parameters = modelParameters(config);
  using device = await openDevice(config.device, { note: options.note });
  using engine = await device.open({
    parameters,
    initial: new Map([...weights].map(([name, { data }]) => [name, data as Float32Array])),
    loss: languageModel(config),
    batchSize,
    seqLen,
  });
  const batch = nextTokenBatch(ids.data as Int32Array, seqLen);
  const tensors: ParityTensor[] = [];
  const compare = (name: string, got: ArrayLike<number>, tolerance: number) => {
    const relative = relativeError(got, want(name).data);
    tensors.push({ name, relative, tolerance });
  };
  compare("dense.logits", await engine.logits(batch.tokens), tolerances.forward);
  compare("dense.loss", [(await engine.evaluate(batch)).loss], tolerances.forward);
  const gradients = await engine.gradients(batch);
  for (const { name } of parameters) {
    compare(`dense.grad.${name}`, gradients.get(name)!, tolerances.gradient);
  }
  return { case: basename(folder), device: engine.description, tensors };
}

/** Every position but a sequence's last predicts the next token. */
function nextTokenBatch(tokens: Int32Array, seqLen: number): Batch {
  const targets = tokens.map((_, i) => (i + 1) % seqLen === 0 ? -1 : tokens[i + 1]);
  return { tokens, targets, count: targets.filter((t) => t >= 0).length };
}

/** ‖got − want‖ / ‖want‖; infinite where something is not a number. */
function relativeError(got: ArrayLike<number>, want: ArrayLike<number>): number {
  if (got.length !== want.length) return Infinity;
  let difference = 0, norm = 0;
  for (let i = 0; i < got.length; i++) {
    difference += (got[i] - want[i]) ** 2;
    norm += want[i] ** 2;
  }
  const relative = norm === 0 ? Math.sqrt(difference) : Math.sqrt(difference / norm);
  return Number.isNaN(relative) ? Infinity : relative;
}

async function readJson(path: string): Promise<Record<string, unknown>> {
  try {
    return JSON.parse(await Deno.readTextFile(path));
  } catch (error) {
    throw new UserError(`Cannot read ${path}: ${error instanceof Error ? error.message : error}`);
  }
}
