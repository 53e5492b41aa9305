/**
 * The three passes of flash attention as data, and the kernel around the code that a family of
 * kernels (rows in registers, tiles in workgroup memory) makes for a pass.
 *
 * @module
 */
import {
  buffersOf,
  type Extent,
  type HeadDims,
  type HeadTensor,
  headWidth,
  isAligned,
  loader,
  storer,
} from "./heads.ts";
import { Float, foldGrid, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import {
  type Element,
  type Layout,
  layoutUniforms,
  mapValues,
  read,
  update,
  write,
} from "../wgsl/operand.ts";
import type { Sink } from "../wgsl/sink.ts";

/** What all attention kernels of one op need to know. */
export interface AttentionSpec {
  readonly dims: HeadDims;
  readonly extent: Extent;
  /** Factor of the scores, greater than 0. */
  readonly scale: number;
  /** Sliding window: query t sees key s only if t - s < window. Default: all keys up to t. */
  readonly window?: number;
  /** If given, a query sees only the keys selected for it. */
  readonly selection?: SelectionSpec;
}

/**
 * How kernels read a selection: `masked` kernels visit all keys and test the bits of a mask,
 * `gathered` kernels visit only the keys of a list. All heads have one selection.
 */
export type SelectionForm = "masked" | "gathered";

/** A selection of keys. */
export interface SelectionSpec {
  readonly form: SelectionForm;
  /** Most keys that a query has. */
  readonly topk: number;
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
 * WGSL predicate: may a query see a key? `selected` is the predicate of a mask, if there is one.
 * Kernels also skip what no query of a tile may see.
 */
export function visible(
  { window }: AttentionSpec,
  query: string,
  key: string,
  selected?: string,
): string {
  const terms = [`${key} <= ${query}`];
  if (window !== undefined) terms.push(`${query} - ${key} < u.window`);
  if (selected) terms.push(selected);
  return `(${terms.join(" && ")})`;
}

/** Pairs of a query and a key that it sees, in one sequence and head; all bits of a mask set. */
export function visiblePairs({ extent: { seqLen }, window, selection }: AttentionSpec): number {
  const most = Math.min(window ?? seqLen, selection?.topk ?? seqLen, seqLen);
  return most * (seqLen - (most - 1) / 2);
}

/** Matrices by the names that they have in WGSL, in the order of their bindings. */
export type Named<M extends Layout = Layout> = Readonly<Record<string, M>>;

/** What the kernel of a pass works on. */
export interface PassOperands {
  /** The inputs, the matrices of a selection, and for gradients `grad_o`, `lse` and `delta`. */
  readonly read: Named;
  /** The results, written or added to in place. */
  readonly written: Readonly<Record<string, Sink>>;
}

/** Matrices that are never read as `vec4`s, and their elements. */
const SCALARS: Readonly<Record<string, Element>> = {
  lse: "f32",
  delta: "f32",
  mask: "u32",
  blocks: "u32",
  indices: "i32",
  starts: "u32",
  queries: "i32",
  scores: "f32",
};

/** What a family of kernels adds to a pass. */
export interface PassCode {
  readonly declarations: string;
  readonly body: string;
  readonly workgroup: number;
  /** Rows of one workgroup. */
  readonly tileRows: number;
  /** Most iterations of an invocation. */
  readonly iterations: number;
  /** Whether all tiles of a head come before the next head, so that its keys stay in the cache. */
  readonly headByHead?: boolean;
}

/** Iterations of a pass whose columns take `ofColumns`, if it is over keys, for each sharing head. */
export function passIterations(
  pass: Pass,
  { heads, kvHeads }: HeadDims,
  ofColumns: number,
): number {
  return pass.keyMajor ? heads / kvHeads * (1 + ofColumns) : ofColumns;
}

/** Most columns of a row's list: the keys of a query, or the queries that selected a key. */
export function listLength(pass: Pass, { extent: { seqLen }, selection }: AttentionSpec): number {
  return pass.keyMajor ? seqLen : Math.min(selection?.topk ?? seqLen, seqLen);
}

/**
 * Assembles the kernel of a pass: a workgroup for each tile of rows of each head. In scope of
 * `body`: `tile`, `batch_row` (the first row of the sequence), `head` (a key head if `keyMajor`),
 * `u.seq_len`, and the loaders and storers of the pass.
 */
export function passKernel(
  pass: Pass,
  spec: AttentionSpec,
  { read: given, written }: PassOperands,
  generate: (aligned: boolean) => PassCode,
): Kernel {
  const { dims, extent: { batch, seqLen }, scale, window, selection } = spec;
  const all = Object.entries({ ...given, ...mapValues(written, ({ into }) => into) });
  const aligned = isAligned(dims, all.flatMap(([name, m]) => name in SCALARS ? [] : [m]));
  const typeOf = (name: string) => SCALARS[name] ?? (aligned ? "vec4f" : "f32");
  const operands = {
    ...mapValues(given, (m, name) => read(m, typeOf(name))),
    ...mapValues(written, (sink, name) => (sink.add ? update : write)(sink.into, typeOf(name))),
  };
  const tensors = [...pass.rows, ...pass.cols] as HeadTensor[];
  const missing = tensors.flatMap((t) => buffersOf(t, dims)).find((name) => !(name in operands));
  if (missing) throw new RangeError(`Cannot run ${pass.name} without ${missing}`);
  const code = generate(aligned);
  const heads = pass.keyMajor ? dims.kvHeads : dims.heads;
  const tiles = Math.ceil(seqLen / code.tileRows);
  const perPair = pass.rows.reduce((sum, t) => sum + headWidth(t, dims), 0) +
    pass.sums.reduce((sum, s) => sum + headWidth(s.into, dims), 0);
  const place = code.headByHead ? "index % u.tiles" : "index / u.units";
  return makeKernel({
    name: pass.name,
    shape: `${batch}x${seqLen}x${dims.heads}`,
    operands,
    uniforms: {
      seq_len: seqLen,
      tiles,
      units: batch * heads,
      // Exponentials are to base 2, as the hardware has them.
      scale: new Float(scale),
      scale_log2: new Float(scale * Math.LOG2E),
      ...window !== undefined ? { window: Math.min(window, seqLen) } : {},
      ...selection?.form === "gathered" ? { topk: selection.topk } : {},
      ...layoutUniforms(operands),
    },
    workgroup: code.workgroup,
    grid: foldGrid(tiles * batch * heads),
    iterations: code.iterations,
    declarations: [
      ...tensors.map((t) => loader(t, dims, aligned)),
      ...pass.sums.map((s) => storer(s.into, dims, aligned, addedTo(written))),
      code.declarations,
    ].join("\n"),
    // Tiles with the most visible pairs come first, so that the last workgroups are short ones.
    body: `
let index = wid.x + wid.y * groups.x;
if (index >= u.tiles * u.units) { return; }
let tile = ${pass.keyMajor ? place : `u.tiles - 1u - ${place}`};
let unit = ${code.headByHead ? "index / u.tiles" : "index % u.units"};
let batch_row = unit / ${heads}u * u.seq_len;
let head = unit % ${heads}u;
${code.body}`,
    flops: 2 * batch * dims.heads * visiblePairs(spec) * perPair,
  });
}

/** Names of the results that are added to. */
export function addedTo(written: Readonly<Record<string, Sink>>): ReadonlySet<string> {
  return new Set(Object.keys(written).filter((name) => written[name].add));
}
