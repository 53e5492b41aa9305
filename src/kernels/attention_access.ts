/**
 * How the attention kernels reach their matrices: the widths of the heads, which columns of which
 * matrix a head is, and WGSL functions that read and write heads by `vec4` columns.
 *
 * One description serves multi-head, grouped-query and latent attention: a query head is `nope`
 * columns that meet the head's own key and `rope` columns that meet a key shared by all heads.
 *
 * @module
 */
import { bytesOf, type Kernel, type Layout, layoutUniforms, makeKernel } from "./kernel.ts";
import { type BufferSpec, Float, foldGrid } from "./kernel.ts";

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
    layouts.every((m) => m.offset % 4 === 0 && m.stride % 4 === 0);
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
      const column = plus(`head * ${s.headStride / 4}u`, (s.start - from) / 4);
      const read =
        `${s.buffer}[(u.${s.buffer}_offset + row * u.${s.buffer}_stride) / 4u + ${column} + c]`;
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

/** What all attention kernels of one op need to know. */
export interface AttentionSpec {
  readonly dims: HeadDims;
  readonly extent: Extent;
  /** Factor of the scores, greater than 0. */
  readonly scale: number;
}

/** One streamed pass: what stays with a row of scores, what streams past it, and the results. */
export interface Pass {
  readonly name: string;
  /** Read by row: scores are `rows[0] · cols[0]`, their gradients `rows[1] · cols[1]`. */
  readonly rows: readonly HeadTensor[];
  /** Read by column. */
  readonly cols: readonly [HeadTensor, HeadTensor];
  /** Results: row r of `into` is the sum over columns c of weight(r, c) * cols[of](c). */
  readonly sums: readonly { weight: "p" | "ds"; of: 0 | 1; into: string }[];
  /** Whether rows are keys and columns queries, or the other way round. */
  readonly keyMajor: boolean;
}

/** The three passes of flash attention. */
export const PASSES = {
  forward: {
    name: "attention",
    rows: ["q"],
    cols: ["k", "v"],
    sums: [{ weight: "p", of: 1, into: "o" }],
    keyMajor: false,
  },
  gradQ: {
    name: "attention_grad_q",
    rows: ["q", "grad_o"],
    cols: ["k", "v"],
    sums: [{ weight: "ds", of: 0, into: "grad_q" }],
    keyMajor: false,
  },
  gradKv: {
    name: "attention_grad_kv",
    rows: ["k", "v"],
    cols: ["q", "grad_o"],
    sums: [{ weight: "p", of: 1, into: "grad_v" }, { weight: "ds", of: 0, into: "grad_k" }],
    keyMajor: true,
  },
} as const satisfies Record<string, Pass>;

/**
 * WGSL predicate: may a query see a key? Kernels also skip what no query of a tile may see; a
 * selection mask would extend both.
 */
export function visible(query: string, key: string): string {
  return `(${key} <= ${query})`;
}

/** The buffers of a pass by name, in binding order. */
export type Operands = Record<string, { layout: Layout; write: boolean }>;

/** Names of the inputs, in the order in which their layouts are given. */
export function inputNames(dims: HeadDims): string[] {
  return ["q", ...(dims.packed ? ["kv"] : ["k", "v"]), ...(dims.rope > 0 ? ["k_pe"] : [])];
}

/** Matrices with one f32 per head, which are never read as `vec4`s. */
const PER_HEAD = new Set(["lse", "delta"]);

/** What a family of kernels adds to a pass. */
export interface PassCode {
  readonly declarations: string;
  readonly body: string;
  readonly workgroup: number;
  /** Rows of one workgroup. */
  readonly tileRows: number;
}

/**
 * Assembles the kernel of a pass: a workgroup for each tile of rows of each head. In scope of
 * `body`: `tile`, `batch_row` (the first row of the sequence), `head` (a key head if `keyMajor`),
 * `u.seq_len`, and the loaders and storers of the pass.
 */
export function passKernel(
  pass: Pass,
  spec: AttentionSpec,
  operands: Operands,
  accumulate: ReadonlySet<string>,
  generate: (aligned: boolean) => PassCode,
): Kernel {
  const { dims, extent: { batch, seqLen }, scale } = spec;
  const matrices = Object.entries(operands).filter(([name]) => !PER_HEAD.has(name));
  const aligned = isAligned(dims, matrices.map(([, m]) => m.layout));
  const code = generate(aligned);
  const heads = pass.keyMajor ? dims.kvHeads : dims.heads;
  const tiles = Math.ceil(seqLen / code.tileRows);
  const buffers: Record<string, BufferSpec> = {};
  for (const [name, { write }] of Object.entries(operands)) {
    const access = write ? "read_write" : "read";
    buffers[name] = aligned && !PER_HEAD.has(name) ? `${access} vec4f` : access;
  }
  const layouts = Object.fromEntries(Object.entries(operands).map(([n, m]) => [n, m.layout]));
  const perPair = pass.rows.reduce((sum, t) => sum + headWidth(t, dims), 0) +
    pass.sums.reduce((sum, s) => sum + headWidth(s.into, dims), 0);
  const tensors = [...pass.rows, ...pass.cols] as HeadTensor[];
  return makeKernel({
    name: pass.name,
    shape: `${batch}x${seqLen}x${dims.heads}`,
    buffers,
    uniforms: {
      seq_len: seqLen,
      tiles,
      units: batch * heads,
      // Exponentials are to base 2, as the hardware has them.
      scale: new Float(scale),
      scale_log2: new Float(scale * Math.LOG2E),
      ...layoutUniforms(layouts),
    },
    workgroup: code.workgroup,
    grid: foldGrid(tiles * batch * heads),
    declarations: [
      ...tensors.map((t) => loader(t, dims, aligned)),
      ...pass.sums.map((s) => storer(s.into, dims, aligned, accumulate)),
      code.declarations,
    ].join("\n"),
    // Tiles with the most visible pairs come first, so that the last workgroups are short ones.
    body: `
let index = wid.x + wid.y * groups.x;
if (index >= u.tiles * u.units) { return; }
let tile = ${pass.keyMajor ? "index / u.units" : "u.tiles - 1u - index / u.units"};
let unit = index % u.units;
let batch_row = unit / ${heads}u * u.seq_len;
let head = unit % ${heads}u;
${code.body}`,
    flops: batch * dims.heads * seqLen * (seqLen + 1) * perPair,
    bytes: bytesOf(...Object.values(layouts)),
  });
}
