/**
 * How the attention kernels reach their matrices: the widths of the heads, which columns of which
 * matrix a head is, and WGSL functions that read and write heads by `vec4` columns.
 *
 * One description serves multi-head, grouped-query and latent attention: a query head is `nope`
 * columns that meet the head's own key and `rope` columns that meet a key shared by all heads.
 *
 * @module
 */
import { startsAtVec4 } from "../wgsl/kernel.ts";
import type { Layout } from "../wgsl/operand.ts";

/** Widths of the heads. They are equal in all layers of a model, so they are baked into the code. */
export interface HeadDims {
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads; divides `heads`, and query head h reads head floor(h / (heads / kvHeads)). */
  readonly kvHeads: number;
  /** Width of a key head. A query head is `nope + rope` wide. */
  readonly nope: number;
  /** Width of the key that all heads share, 0 if there is none. */
  readonly rope: number;
  /** Width of a value head. */
  readonly value: number;
  /** Keys and values are one matrix: columns `[key | value]` of head 0, of head 1, and so on. */
  readonly packed: boolean;
}

/** Sequences: row `b * seqLen + t` of every matrix is token t of sequence b. */
export interface Extent {
  readonly batch: number;
  readonly seqLen: number;
}

/** Tensors whose heads the kernels work on. */
export type HeadTensor = "q" | "k" | "v" | "grad_o";

/** Part of a head: `width` columns of `buffer` from column `head * headStride + start`. */
interface Span {
  readonly buffer: string;
  readonly width: number;
  readonly headStride: number;
  readonly start: number;
}

/** Width of a query head. */
export function queryWidth(dims: HeadDims): number {
  return dims.nope + dims.rope;
}

/** Columns of a head, of what is read (`q`, `k`, `v`, `grad_o`) or written (`o`, `grad_q`, …). */
function spansOf(tensor: string, dims: HeadDims): Span[] {
  const { nope, rope, value, packed } = dims;
  const wide = queryWidth(dims);
  const both = packed ? nope + value : 0;
  const grad = tensor.startsWith("grad_") ? "grad_" : "";
  const span = (buffer: string, width: number, headStride = width, start = 0): Span => ({
    buffer,
    width,
    headStride,
    start,
  });
  switch (tensor) {
    case "q":
    case "grad_q":
      return [span(tensor, wide)];
    case "o":
    case "grad_o":
      return [span(tensor, value)];
    case "v":
    case "grad_v":
      return [packed ? span(`${grad}kv`, value, both, nope) : span(tensor, value)];
    case "k":
    case "grad_k": {
      const own = packed ? span(`${grad}kv`, nope, both) : span(tensor, nope);
      // The gradient of the shared key is written per key head, and summed by another kernel.
      return rope === 0 ? [own] : [own, span(`${grad}k_pe`, rope, grad ? rope : 0)];
    }
  }
  throw new RangeError(`Cannot address the heads of ${tensor}`);
}

/** The buffers that the heads of `tensor` lie in. */
export function buffersOf(tensor: string, dims: HeadDims): string[] {
  return spansOf(tensor, dims).map(({ buffer }) => buffer);
}

/** Width of a head of `tensor`. */
export function headWidth(tensor: string, dims: HeadDims): number {
  return spansOf(tensor, dims).reduce((sum, s) => sum + s.width, 0);
}

/** `vec4` columns of a head of `tensor`; the last one may be partly filled. */
export function headColumns(tensor: string, dims: HeadDims): number {
  return Math.ceil(headWidth(tensor, dims) / 4);
}

/** Whether all heads can be read and written as whole `vec4`s. */
export function isAligned(dims: HeadDims, layouts: readonly Layout[]): boolean {
  return [dims.nope, dims.rope, dims.value].every((width) => width % 4 === 0) &&
    layouts.every(startsAtVec4);
}

/**
 * WGSL `load_<tensor>(row, head, c) -> vec4f`: columns 4c … 4c + 3 of a head, 0 past its width.
 * `head` counts query heads for `q` and `grad_o`, key heads for `k` and `v`.
 */
export function loader(tensor: HeadTensor, dims: HeadDims, aligned: boolean): string {
  const spans = spansOf(tensor, dims);
  let from = 0;
  const lines: string[] = [];
  if (aligned) {
    spans.forEach((s, i) => {
      const read = vec4At(s, from / 4);
      from += s.width;
      lines.push(
        i < spans.length - 1 ? `  if (c < ${from / 4}u) { return ${read}; }` : `  return ${read};`,
      );
    });
    return `fn load_${tensor}(row: u32, head: u32, c: u32) -> vec4f {\n${lines.join("\n")}\n}`;
  }
  for (const s of spans) {
    const column = plus(`head * ${s.headStride}u`, s.start - from);
    from += s.width;
    lines.push(
      `  if (d < ${from}u) { return ${s.buffer}[u.${s.buffer}_offset + row * u.${s.buffer}_stride + ${column} + d]; }`,
    );
  }
  const element = (i: number) => `element_${tensor}(row, head, 4u * c + ${i}u)`;
  return `fn element_${tensor}(row: u32, head: u32, d: u32) -> f32 {
${lines.join("\n")}
  return 0.0;
}
fn load_${tensor}(row: u32, head: u32, c: u32) -> vec4f {
  return vec4f(${[0, 1, 2, 3].map(element).join(", ")});
}`;
}

/** `vec4` columns of the spans of a head: parts that lie in one matrix each. For aligned heads. */
export function spanColumns(tensor: HeadTensor, dims: HeadDims): number[] {
  return spansOf(tensor, dims).map(({ width }) => width / 4);
}

/** WGSL `load_<tensor>_<span>(row, head, c) -> vec4f`: like {@linkcode loader}, in one span. */
export function spanLoaders(tensor: HeadTensor, dims: HeadDims): string {
  return spansOf(tensor, dims).map((s, i) =>
    `fn load_${tensor}_${i}(row: u32, head: u32, c: u32) -> vec4f { return ${vec4At(s, 0)}; }`
  ).join("\n");
}

/** Consecutive `vec4` columns of a head that one function of WGSL reads. */
export interface ColumnRun {
  /** The first column of the head. */
  readonly from: number;
  readonly columns: number;
  /** The function, such as `load_k`. */
  readonly load: string;
  /** The column that is column 0 to it. */
  readonly origin: number;
}

/**
 * Cuts `columns` columns of a head from `from` on where its spans meet, so that nothing branches
 * within a run: by {@linkcode spanLoaders}, or, if heads are not aligned, all by {@linkcode loader}.
 */
export function columnRuns(
  tensor: HeadTensor,
  dims: HeadDims,
  aligned: boolean,
  from = 0,
  columns = headColumns(tensor, dims),
): ColumnRun[] {
  if (!aligned) return [{ from, columns, load: `load_${tensor}`, origin: 0 }];
  const runs: ColumnRun[] = [];
  let origin = 0;
  spanColumns(tensor, dims).forEach((width, i) => {
    const start = Math.max(from, origin);
    const end = Math.min(from + columns, origin + width);
    const load = `load_${tensor}_${i}`;
    if (start < end) runs.push({ from: start, columns: end - start, load, origin });
    origin += width;
  });
  return runs;
}

/** WGSL of the `vec4` in column `c - skipped` of a span. */
function vec4At({ buffer, headStride, start }: Span, skipped: number): string {
  const column = plus(`head * ${headStride / 4}u`, start / 4 - skipped);
  return `${buffer}[(u.${buffer}_offset + row * u.${buffer}_stride) / 4u + ${column} + c]`;
}

/**
 * WGSL `store_<tensor>(row, head, c, value: vec4f)`, the counterpart of {@linkcode loader} for
 * `o`, `grad_q`, `grad_k` and `grad_v`. The buffers named in `accumulate` are added to.
 */
export function storer(
  tensor: string,
  dims: HeadDims,
  aligned: boolean,
  accumulate: ReadonlySet<string>,
): string {
  const spans = spansOf(tensor, dims);
  let from = 0;
  const lines: string[] = [];
  for (const s of spans) {
    const unit = aligned ? 4 : 1;
    const column = plus(`head * ${s.headStride / unit}u`, (s.start - from) / unit);
    const start = `u.${s.buffer}_offset + row * u.${s.buffer}_stride`;
    const place = `${s.buffer}[${aligned ? `(${start}) / 4u` : start} + ${column} + d]`;
    from += s.width;
    const assign = accumulate.has(s.buffer) ? "+=" : "=";
    lines.push(`  if (d < ${from / unit}u) { ${place} ${assign} value; return; }`);
  }
  if (aligned) {
    return `fn store_${tensor}(row: u32, head: u32, d: u32, value: vec4f) {\n${
      lines.join("\n")
    }\n}`;
  }
  const element = (component: string, i: number) =>
    `  store_element_${tensor}(row, head, 4u * c + ${i}u, value.${component});`;
  return `fn store_element_${tensor}(row: u32, head: u32, d: u32, value: f32) {
${lines.join("\n")}
}
fn store_${tensor}(row: u32, head: u32, c: u32, value: vec4f) {
${["x", "y", "z", "w"].map(element).join("\n")}
}`;
}

/** `a + n` in u32, where n may be negative. */
function plus(a: string, n: number): string {
  return n < 0 ? `${a} - ${-n}u` : n > 0 ? `${a} + ${n}u` : a;
}
