/**
 * Compares this implementation with golden vectors made by Hugging Face transformers.
 *
 * A case is a folder with `config.json`, `weights.safetensors` and `golden.safetensors`; the
 * latter holds `input_ids [B, T]`, and for `dense` and `sparse` attention: `logits`, `loss`,
 * `grad.<parameter>`; and, where the weights have an indexer, per layer `index_scores`, `target`
 * (head-summed attention), `kl`, `kl_grad.<parameter>` and (sparse) the selection `topk`.
 *
 * Which of keys with equal scores is selected, transformers leaves to `torch.topk`, which takes any.
 * Rows that tie so at the border of the selection are counted; where others are selected there, these
 * rows and what follows from them are not compared (`tied_rows.ts`).
 *
 * @module
 */
import { parseMetric } from "../metrics/names.ts";
import { basename, join } from "node:path";
import { resolveConfig, type RunConfig } from "../config/config.ts";
import type { Batch } from "../data/dataset.ts";
import { UserError } from "../errors.ts";
import { isThere, readJson } from "../files/files.ts";
import { fromHuggingFace } from "../config/hugging_face.ts";
import { modelParameters } from "../model/parameters.ts";
import { savedParameters } from "../model/saved_parameters.ts";
import type { StageView } from "../model/stage_view.ts";
import { languageModel } from "../model/transformer.ts";
import { type Device, openDevice } from "../open_device.ts";
import { type LeftOut, type TiedRows, tiedRows } from "./tied_rows.ts";
import { readSafetensors, type StoredTensor } from "../files/safetensors.ts";

/** Relative errors allowed: ‖ours − golden‖ / ‖golden‖ of each tensor. */
const tolerances = { forward: 1e-5, gradient: 1e-4 } as const;

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
  /** Rows of selections where a key is in and another of the same score is not. */
  readonly tiedRows: number;
  /** Those where transformers selects others: they, and what follows from them, are left out. */
  readonly otherRows: number;
  /** Tensors of which nothing is left to compare. */
  readonly leftOut: readonly string[];
}

/** Whether every tensor is within its tolerance. */
export function passes({ tensors }: ParityCase): boolean {
  return tensors.length > 0 && tensors.every(({ relative, tolerance }) => relative <= tolerance);
}

/** The tensor that comes nearest to its tolerance, or is furthest beyond. */
export function worst({ tensors }: ParityCase): ParityTensor {
  const badness = ({ relative, tolerance }: ParityTensor) =>
    tolerance > 0 ? relative / tolerance : relative > 0 ? Infinity : 0;
  return tensors.reduce((a, b) => badness(a) >= badness(b) ? a : b);
}

/**
 * Compares one case: every tensor of its `golden.safetensors`.
 *
 * @throws {UserError} if the folder lacks a file or a tensor, or has weights of another model
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { compareWithGolden, passes } from "./parity.ts";
 *
 * const folder = new URL("../../tests/golden/even", import.meta.url).pathname;
 * assert(passes(await compareWithGolden(folder, { device: "cpu" })));
 * ```
 */
export async function compareWithGolden(
  folder: string,
  options: { device?: RunConfig["device"]; note?: (line: string) => void } = {},
): Promise<ParityCase> {
  const refuse = (reason: string): never => {
    throw new UserError(`Cannot compare ${folder}: ${reason}`);
  };
  if (!isThere(folder)) refuse("there is no such folder; give one such as tests/golden/even");
  const json = readJson(join(folder, "config.json")) ?? refuse("config.json is missing");
  const file = join(folder, "weights.safetensors");
  const weights = (await readSafetensors(file)).tensors;
  const golden = (await readSafetensors(join(folder, "golden.safetensors"))).tensors;
  const { data: ids, shape } = golden.get("input_ids") ??
    refuse("golden.safetensors has no input_ids");
  if (!(ids instanceof Int32Array) || shape.length !== 2) {
    return refuse(
      `input_ids of golden.safetensors are no integers [batch, length], but [${shape}]`,
    );
  }
  const [batchSize, seqLen] = shape;
  const hasIndexer = [...weights.keys()].some((name) => name.includes(".indexer."));
  const config = resolveConfig({
    ...fromHuggingFace(json),
    recipe: hasIndexer ? "dsa" : "dense",
    device: options.device ?? "auto",
    batchSize,
    seqLen,
  });
  const initial = savedParameters(weights, config, { file });
  const batch = nextTokenBatch(ids, seqLen);
  using device = await openDevice(config.device, { note: options.note });
  const tensors: ParityTensor[] = [];
  const leftOut: string[] = [];
  let ties: TiedRows | null = null;
  for (const mode of ["dense", "sparse"] as const) {
    const wanted = new Map(
      [...golden].filter(([name]) => name.startsWith(`${mode}.`))
        .map(([name, tensor]) => [name.slice(mode.length + 1), tensor]),
    );
    if (!wanted.size) continue;
    const got = await compute(device, { config, mode, batch, initial, hasIndexer });
    if (mode === "sparse" && hasIndexer) ties = compareTies(got, wanted, config);
    for (const [name, tensor] of wanted) {
      const values = got.get(name);
      if (!values) return refuse(`nothing here computes ${name}`);
      const without = mode === "sparse" && ties ? notCompared(name, ties, batch) : [];
      if (without === "all") leftOut.push(`${mode}.${name}`);
      else tensors.push(compare(`${mode}.${name}`, values, { tensor, seqLen, without }));
    }
  }
  if (!tensors.length) refuse("golden.safetensors has no tensors dense.… or sparse.…");
  const { tied = 0, other = 0 } = ties ?? {};
  const rows = { tiedRows: tied, otherRows: other };
  return { case: basename(folder), device: device.gpu?.name ?? "cpu", tensors, ...rows, leftOut };
}

/** Ties of each layer's scores, and what is selected there by golden vectors. */
function compareTies(
  got: ReadonlyMap<string, ArrayLike<number>>,
  wanted: ReadonlyMap<string, StoredTensor>,
  { numHiddenLayers, seqLen }: RunConfig,
): TiedRows {
  const layers = Array.from({ length: numHiddenLayers }, (_, layer) => ({
    scores: got.get(`index_scores.${layer}`)!,
    ours: got.get(`topk.${layer}`)!,
    theirs: wanted.get(`topk.${layer}`)?.data ?? null,
  }));
  return tiedRows(layers, seqLen);
}

/** Rows of a tensor that are not to be compared; `all` of what is made from all of them. */
function notCompared(name: string, ties: TiedRows, { targets }: Batch): LeftOut | "all" {
  const [kind, layer] = [name.split(".")[0], Number(/\b\d+\b/.exec(name)?.[0])];
  const whole = (rows: LeftOut) => rows.some(Boolean) ? "all" : [];
  switch (kind) {
    case "index_scores":
      return ties.scores[layer];
    case "topk":
    case "target":
      return ties.selections[layer];
    case "kl":
    case "kl_grad":
      return whole(ties.selections[layer]);
    case "logits":
      return ties.logits;
    default:
      // The loss and its gradients.
      return whole(ties.logits.filter((_, row) => targets[row] >= 0));
  }
}

/** Everything that a golden file may hold of one mode, by its names there. */
async function compute(
  device: Device,
  { config, mode, batch, initial, hasIndexer }: {
    config: RunConfig;
    mode: "dense" | "sparse";
    batch: Batch;
    initial: ReadonlyMap<string, Float32Array>;
    hasIndexer: boolean;
  },
): Promise<Map<string, ArrayLike<number>>> {
  const selects = mode === "sparse";
  const stage: StageView = {
    selector: selects ? "learned" : "dense",
    indexTopk: Math.min(config.indexTopk, config.seqLen),
    kl: !hasIndexer ? "none" : selects ? "selected" : "dense",
    trainsIndexer: hasIndexer,
    measures: false,
    maps: hasIndexer,
  };
  const loss = languageModel(config, { stage, trains: "both" });
  const { batchSize, seqLen } = config;
  const parameters = modelParameters(config);
  using engine = await device.open({ parameters, initial, loss, batchSize, seqLen });
  const found = new Map<string, ArrayLike<number>>();
  found.set("logits", await engine.logits(batch.tokens));
  for (const [name, value] of Object.entries(await engine.evaluate(batch))) {
    const { layer, key } = parseMetric(name);
    found.set(layer === null ? name : `${key}.${layer}`, [value]);
  }
  // The objective is loss + KL: the backbone's gradients are the loss's, the indexer's the KL's.
  for (const [name, gradient] of await engine.gradients(batch)) {
    found.set(`${name.includes(".indexer.") ? "kl_grad" : "grad"}.${name}`, gradient);
  }
  for (const [name, map] of await engine.maps(batch, { name: "maps", loss })) found.set(name, map);
  for (const [name, map] of found) {
    if (!/^(target|index_scores)\./.test(name)) continue;
    const indices = selects && name.startsWith("target.")
      ? found.get(name.replace("target", "topk"))!
      : null;
    found.set(name, onSupport(map, indices, seqLen));
  }
  return found;
}

/** A map with zeros above the diagonal and, if there is a selection, beside it. */
function onSupport(
  map: ArrayLike<number>,
  indices: ArrayLike<number> | null,
  seqLen: number,
): Float32Array {
  const out = new Float32Array(map.length);
  const rows = map.length / seqLen;
  const topk = indices ? indices.length / rows : 0;
  for (let row = 0; row < rows; row++) {
    const t = row % seqLen;
    const keys = indices
      ? Array.from({ length: topk }, (_, i) => indices[row * topk + i]).filter((s) => s >= 0)
      : Array.from({ length: t + 1 }, (_, s) => s);
    for (const s of keys) out[row * seqLen + s] = map[row * seqLen + s];
  }
  return out;
}

/** Selections must be equal; of anything else the relative error is taken. */
function compare(
  name: string,
  values: ArrayLike<number>,
  { tensor, seqLen, without }: { tensor: StoredTensor; seqLen: number; without: LeftOut },
): ParityTensor {
  // A tensor of another size has other rows: all of it differs.
  const left = values.length === tensor.data.length ? without : [];
  const got = rowsLeft(values, left);
  if (name.includes(".topk.")) {
    const want = rowsLeft(tensor.data, left);
    let different = got.length === want.length ? 0 : Infinity;
    for (let i = 0; i < got.length; i++) different += Number(got[i] !== want[i]);
    return { name, relative: different, tolerance: 0 };
  }
  const isGradient = /\.(kl_)?grad\./.test(name);
  const all = name.includes(".index_scores.") ? onSupport(tensor.data, null, seqLen) : tensor.data;
  const want = rowsLeft(all, left);
  const tolerance = isGradient ? tolerances.gradient : tolerances.forward;
  return { name, relative: relativeError(got, want), tolerance };
}

/** The rows that are to be compared; all if `without` says nothing. */
function rowsLeft(values: ArrayLike<number>, without: LeftOut): ArrayLike<number> {
  if (!without.includes(true)) return values;
  const cols = values.length / without.length;
  return Array.from(values).filter((_, i) => !without[Math.floor(i / cols)]);
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
