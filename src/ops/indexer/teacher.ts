/**
 * What ops on an indexer and the attention that teaches it have in common.
 *
 * @module
 */
import type * as tfc from "@tensorflow/tfjs-core";
import { type Extent, queryWidth } from "../../kernels/attention/heads.ts";
import type { Indexer, Teacher } from "../../kernels/indexer/indexer.ts";
import { attentionTarget } from "../../kernels/indexer/teacher.ts";
import { readsSigns } from "../../kernels/indexer/gradient.ts";
import { indexScores } from "../../kernels/indexer/scores.ts";
import { SIGN_WORDS, signRows } from "../../kernels/indexer/signs.ts";
import { twinHeads } from "../attention/passes.ts";
import { mlaHeadDims, type MlaHeads, mlaScale } from "../attention/mla_heads.ts";
import { detachOp } from "../token/detach.ts";
import {
  Derivation,
  type Matrix,
  type Recorder,
  requireShapes,
  type Tensor,
  type TensorType,
  type Tf,
  type TfMatrix,
} from "../op.ts";
import type { QueryChunk } from "../query_chunks.ts";

/** What ops on an indexer and its teacher go by. */
export interface IndexerAttributes {
  batch: number;
  seqLen: number;
  indexer: Indexer;
  teacher: Teacher;
}

/** The same where there may be no indexer: attention's own weights then stand for its scores. */
export interface SelectingAttributes extends Omit<IndexerAttributes, "indexer"> {
  indexer: Indexer | null;
}

/** The indexer's tensors. */
export interface ScoringTensors {
  /** `[N, indexer.heads · indexer.dim]`, rotated. */
  readonly qI: Tensor;
  /** `[N, indexer.dim]`, normalised and rotated. */
  readonly kI: Tensor;
  /** `[N, indexer.heads]`. */
  readonly w: Tensor;
}

/** The teacher's tensors: the inputs of `mlaAttention`, and an `lse`. */
export interface TeacherTensors {
  /** `[N, heads · (nope + rope)]`. */
  readonly q: Tensor;
  /** `[N, heads · (nope + value)]`. */
  readonly kv: Tensor;
  /** `[N, rope]`. */
  readonly kPe: Tensor;
  /** `[N, heads]`. */
  readonly lse: Tensor;
}

/** The attention of `mlaAttention` as a teacher. */
export function mlaTeacher(heads: MlaHeads & { readonly scale?: number }): Teacher {
  return { dims: mlaHeadDims(heads), scale: mlaScale(heads) };
}

/** The inputs that ops on an indexer and its teacher have in common, by name. */
function named<T>([qI, kI, w, q, kv, kPe, lse, mask]: readonly T[]) {
  return { qI, kI, w, q, kv, kPe, lse, mask: mask ?? null };
}

/**
 * The inputs of head `h` alone, of the indexer and of the attention. `columns` takes `count` columns
 * of a matrix, from `start` on.
 */
export function inputsOfHead<T>(
  [qI, kI, w, q, kv, kPe, lse, ...selection]: readonly T[],
  { indexer, teacher: { dims } }: IndexerAttributes,
  h: number,
  columns: (of: T, start: number, count: number) => T,
): T[] {
  const head = (of: T, width: number) => columns(of, h * width, width);
  return [
    head(qI, indexer.dim),
    kI,
    head(w, 1),
    head(q, queryWidth(dims)),
    head(kv, dims.nope + dims.value),
    kPe,
    head(lse, 1),
    ...selection,
  ];
}

/** Checks the inputs of an op on an indexer, if there is one, its teacher and, perhaps, a mask. */
export function requireIndexer(
  op: string,
  inputs: readonly TensorType[],
  { batch, seqLen, indexer, teacher }: SelectingAttributes,
): void {
  const { heads, nope, rope, value } = teacher.dims;
  const counts = {
    ...{ batch, seqLen },
    ...indexer ? { "indexer.heads": indexer.heads, "indexer.dim": indexer.dim } : {},
    ...{ "teacher.heads": heads, "teacher.nope": nope, "teacher.value": value },
  };
  for (const [name, count] of Object.entries(counts)) {
    if (!Number.isInteger(count) || count < 1) {
      throw new RangeError(`Cannot apply ${op}: ${name} is ${count}, not a whole number above 0`);
    }
  }
  for (const [name, { scale }] of Object.entries(indexer ? { indexer, teacher } : { teacher })) {
    if (!(scale > 0 && Number.isFinite(scale))) {
      throw new RangeError(`Cannot apply ${op}: ${name}.scale is ${scale}, not a number above 0`);
    }
  }
  const rows = batch * seqLen;
  const expected: [name: string, cols: number][] = [
    ...indexer ? scoringShapes(indexer) : [],
    ["q", heads * (nope + rope)],
    ["kv", heads * (nope + value)],
    ["kPe", rope],
    ["lse", heads],
    ["i32 mask or none", Math.ceil(seqLen / 32)],
  ];
  const last = expected.length - 1;
  requireShapes(
    (inputs.length === last || inputs.length === last + 1) &&
      inputs.every((x, i) =>
        x.rows === rows && x.cols === expected[i][1] && x.dtype === (i === last ? "i32" : "f32")
      ),
    op,
    inputs,
    expected.map(([name, cols]) => `${name} ${rows}x${cols}`).join(", "),
  );
}

function scoringShapes({ heads, dim }: Indexer): [name: string, cols: number][] {
  return [["qI", heads * dim], ["kI", dim], ["w", heads]];
}

/** Most bytes of the scores of a layer that are kept from its selection to its loss. */
const KEPT_BYTES = 64 * 2 ** 20;

/**
 * Records the index scores of a chunk into `scores` [rows, keys], and the signs of their products if
 * there is a matrix for them. Inputs: qI, kI, w, and others.
 */
export function recordScores(
  r: Recorder,
  inputs: readonly Matrix[],
  indexer: Indexer,
  { firstRow, batch, queriesOf, keysOf }: QueryChunk,
  scores: Matrix,
  signs?: Matrix,
): void {
  const { qI, kI, w } = named(inputs);
  const given = { q: queriesOf(qI), k: keysOf(kI), w: queriesOf(w) };
  const { capabilities } = r;
  r.dispatch(indexScores({ ...given, scores, signs, firstRow, batch, indexer, capabilities }));
}

/** Index scores of a chunk. */
export interface Scores {
  /** [rows, keys]; not to be written to. */
  readonly scores: Matrix;
  /** The signs of the products, if the gradient's kernels read them; see `kernels/indexer/signs.ts`. */
  readonly signs?: Matrix;
}

const scoresOfChunk = new Derivation<Scores>("index scores");

/**
 * The index scores of a chunk: those that were recorded for others before, or, where the scores of a
 * layer are too much to keep, new ones in `scratch`, with signs if a `gradient` needs them.
 */
export function scoresOf(
  r: Recorder,
  inputs: readonly Matrix[],
  { batch, seqLen, indexer }: Pick<IndexerAttributes, "batch" | "seqLen" | "indexer">,
  chunk: QueryChunk,
  scratch: Matrix,
  gradient = false,
): Scores {
  const hasSigns = readsSigns({ indexer, capabilities: r.capabilities });
  const record = (scores: Matrix, keepsSigns: boolean): Scores => {
    const rows = chunk.batch * signRows(chunk.rows, chunk.keys, indexer.heads);
    const signs = keepsSigns ? r.temporary(rows, SIGN_WORDS, "i32") : undefined;
    recordScores(r, inputs, indexer, chunk, scores, signs);
    return { scores, signs };
  };
  const recordKept = () => {
    const { rows, cols, stride } = scratch;
    return record({ ...r.temporary(rows, stride), cols }, hasSigns);
  };
  return 4 * batch * seqLen ** 2 > KEPT_BYTES
    ? record(scratch, hasSigns && gradient)
    // An indexer's queries are its alone: who shares them shares keys and weights.
    : r.derived(chunk.queriesOf(inputs[0]), scoresOfChunk, recordKept);
}

/**
 * Records the teacher of a chunk, not normalised, into `target` [rows, keys], from the matrices q,
 * kv, kPe and lse.
 */
export function recordTarget(
  r: Recorder,
  [q, kv, kPe, lse]: readonly Matrix[],
  teacher: Teacher,
  { firstRow, batch, queriesOf, keysOf }: QueryChunk,
  target: Matrix,
): void {
  const given = { q: queriesOf(q), kv: keysOf(kv), kPe: keysOf(kPe), lse: queriesOf(lse) };
  const { capabilities } = r;
  const kernel = attentionTarget({ ...given, teacher, target, firstRow, batch, capabilities });
  r.dispatch(kernel);
}

/**
 * Index scores, teacher (not normalised) and support as [batch, seqLen, seqLen], for twins. Nothing
 * flows back through the teacher.
 */
export function twinScores(
  tf: Tf,
  inputs: readonly TfMatrix[],
  { batch, seqLen, indexer, teacher }: IndexerAttributes,
): { scores: tfc.Tensor; target: tfc.Tensor; support: tfc.Tensor } {
  const { qI, kI, w, mask } = named(inputs);
  const extent = { batch, seqLen };
  const products = tf.matMul(
    twinHeads(tf, qI, extent, indexer.heads),
    tf.tile(twinHeads(tf, kI, extent, 1), [1, indexer.heads, 1, 1]),
    false,
    true,
  );
  const act = indexer.activation === "relu" ? tf.relu(products) : products;
  const weights = twinHeads(tf, w, extent, indexer.heads);
  const scores = tf.mul(tf.sum(tf.mul(act, weights), 1), indexer.scale);
  const support = twinSupport(tf, mask, extent);
  return {
    scores,
    target: twinTarget(tf, inputs.slice(3, 7), { ...extent, teacher }, support),
    support,
  };
}

/** The teacher (not normalised) as [batch, seqLen, seqLen], 0 where a query may not look. */
export function twinTarget(
  tf: Tf,
  inputs: readonly TfMatrix[],
  { teacher, ...extent }: Pick<IndexerAttributes, "batch" | "seqLen" | "teacher">,
  support = twinSupport(tf, null, extent),
): tfc.Tensor {
  const { heads, nope } = teacher.dims;
  const [q, kv, kPe, lse] = inputs.map((x) => detachOp.twin(tf, [x], { cols: x.shape[1] })[0]);
  const own = tf.slice(twinHeads(tf, kv, extent, heads), [0, 0, 0, 0], [-1, -1, -1, nope]);
  const shared = tf.tile(twinHeads(tf, kPe, extent, 1), [1, heads, 1, 1]);
  const logits = tf.matMul(
    twinHeads(tf, q, extent, heads),
    tf.concat([own, shared], 3),
    false,
    true,
  );
  const hidden = tf.expandDims(tf.mul(tf.sub(1, support), -1e9), 1);
  const logs = tf.sub(tf.mul(logits, teacher.scale), twinHeads(tf, lse, extent, heads));
  return tf.mean(tf.exp(tf.add(logs, hidden)), 1);
}

/** 1 where a query may look: at all keys up to itself, or at those of its row of the mask. */
function twinSupport(
  tf: Tf,
  mask: TfMatrix | null,
  { batch, seqLen }: Extent,
): tfc.Tensor {
  const bits = mask?.dataSync();
  const words = Math.ceil(seqLen / 32);
  const support = new Float32Array(batch * seqLen * seqLen);
  for (let row = 0, i = 0; row < batch * seqLen; row++) {
    for (let s = 0; s < seqLen; s++, i++) {
      const isSet = !bits || (bits[row * words + (s >> 5)] >> (s & 31) & 1) === 1;
      support[i] = Number(s <= row % seqLen && isSet);
    }
  }
  return tf.tensor3d(support, [batch, seqLen, seqLen]);
}
