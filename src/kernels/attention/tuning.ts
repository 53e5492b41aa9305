/**
 * Which kernels of attention run where: the tables to tune. `tests/kernels/attention_bench.ts`
 * times the alternatives.
 *
 * @module
 */
import { headColumns, type HeadDims, queryWidth } from "./heads.ts";
import { gatherBytes, type GatherShape } from "./lists.ts";
import { type AttentionSpec, type Pass, PASSES } from "./pass.ts";
import { blocksAlong, partsOf, type Units } from "./blocks.ts";
import type { RowShape } from "./rows.ts";
import { SUMS } from "./sums.ts";
import { type AttentionTile, planTile } from "./plan.ts";
import { subgroupLanes } from "../product/subgroup.ts";
import { fitsDevice, tallTile, type Tile as ProductTile } from "../product/tile_loop.ts";

/** Capabilities that the choice of a kernel depends on. */
export interface AttentionDevice {
  readonly software: boolean;
  readonly workgroupBytes: number;
  readonly maxInvocations: number;
  readonly maxBindingBytes: number;
  readonly subgroups: { readonly min: number; readonly max: number } | null;
}

/** Names of the passes that {@linkcode ATTENTION_TILES} and {@linkcode ROWS} tune. */
export type PassName = keyof typeof PASSES;

/**
 * A way to run a pass: by tiles in workgroup memory, by rows in registers, or, with a gathered
 * selection, by lists. `rows` also serve gathered selections; their numbers then are 1.
 */
export type AttentionPlan =
  | { readonly tile: AttentionTile }
  | { readonly rows: RowShape }
  | { readonly gather: GatherShape };

/** Small tiles for devices with little workgroup memory, and for wide heads. */
const SMALL_TILES: readonly AttentionTile[] = [
  { lanesX: 8, lanesY: 8, rows: 4, cols: 4, chunk: 8, unroll: 8 },
  { lanesX: 4, lanesY: 8, rows: 4, cols: 4, chunk: 4, unroll: 4 },
  { lanesX: 4, lanesY: 8, rows: 2, cols: 4, chunk: 4, unroll: 4 },
];

/**
 * Tiles of the GPU kernels in order of preference, the first the fastest on an H100; the first that
 * fits the device is taken, and if none does (very wide heads) the kernels without workgroup memory
 * are. Heads are narrow if `nope + rope` is at most 48.
 */
export const ATTENTION_TILES: Record<
  PassName,
  Record<"narrow" | "wide", readonly AttentionTile[]>
> = {
  forward: {
    narrow: [{ lanesX: 8, lanesY: 16, rows: 4, cols: 4, chunk: 12, unroll: 12 }, ...SMALL_TILES],
    wide: [
      { lanesX: 8, lanesY: 32, rows: 4, cols: 4, chunk: 8, unroll: 8 },
      ...SMALL_TILES,
    ],
  },
  gradQ: {
    narrow: [{ lanesX: 16, lanesY: 16, rows: 4, cols: 4, chunk: 8, unroll: 8 }, ...SMALL_TILES],
    wide: [
      { lanesX: 8, lanesY: 32, rows: 4, cols: 4, chunk: 8, unroll: 8 },
      ...SMALL_TILES,
    ],
  },
  gradKv: {
    narrow: [{ lanesX: 8, lanesY: 16, rows: 2, cols: 4, chunk: 24, unroll: 8 }, ...SMALL_TILES],
    wide: [{ lanesX: 8, lanesY: 32, rows: 2, cols: 4, chunk: 16, unroll: 8 }, ...SMALL_TILES],
  },
};

/** Rows per invocation and columns per step of the kernels for software adapters. */
type RowCounts = Pick<RowShape, "rows" | "cols">;

/**
 * The counts by the largest `nope + rope`: more rows are faster, until the compiler needs seconds
 * for the code.
 */
export const ROWS: readonly (RowCounts & { readonly width: number })[] = [
  { width: 48, rows: 4, cols: 2 },
  { width: 96, rows: 2, cols: 1 },
  { width: Infinity, rows: 1, cols: 1 },
];

/** Invocations per query of the gathered kernels, and per key, of which some have long lists. */
const TEAM = { query: 32, key: 64 };

/** Most `vec4`s that an invocation of a gathered kernel reads in a step. */
const GATHERED = 20;

/**
 * Shape of a gathered kernel for the widths of the heads, or null if workgroup memory is too small.
 */
function gatherShape(
  pass: Pass,
  dims: HeadDims,
  device: AttentionDevice,
): GatherShape | null {
  const widths = pass.cols.map((t) => headColumns(t, dims));
  const perLane = (lanes: number) => widths.reduce((sum, w) => sum + Math.ceil(w / lanes), 0);
  const lanes = 4 * perLane(4) < 8 * perLane(8) ? 4 : 8;
  const shape = {
    lanes,
    slots: (pass.keyMajor ? TEAM.key : TEAM.query) / lanes,
    each: [4, 2].find((n) => n * perLane(lanes) <= GATHERED) ?? 1,
    shuffle: device.subgroups !== null && device.subgroups.min >= lanes,
  };
  const options = [4, 1].map((rows) => ({ ...shape, rows }));
  return options.find((o) => gatherBytes(pass, dims, o) <= device.workgroupBytes) ?? null;
}

/**
 * Keys per selected key from which on the gathered kernels are taken, by default: a masked kernel
 * computes all seqLen² / 2 pairs, tile by tile from fast memory, a gathered one seqLen * topk pairs
 * that it reads from the cache one by one. On an H100 a training step's attention takes 34 ps for a
 * masked pair of a head and 187 ps for a gathered one (S = 8 192), which meet at 11; lavapipe's meet
 * at 8. The indexer's loss goes by this number, too, and is dearer masked.
 * `tests/kernels/sparse_attention_bench.ts` times attention in both forms.
 */
const GATHER_FROM = 8;

/** Whether `form: "auto"` gathers: how attention over a selection runs fastest. */
export function gathersByDefault(seqLen: number, topk: number): boolean {
  return seqLen >= topk * GATHER_FROM;
}

/** Chooses how a pass runs on a device. */
export function planAttention(
  name: PassName,
  spec: AttentionSpec,
  device: AttentionDevice,
): AttentionPlan {
  const width = queryWidth(spec.dims);
  if (spec.selection?.form === "gathered") {
    const gather = device.software ? null : gatherShape(PASSES[name], spec.dims, device);
    return gather ? { gather } : { rows: rowShape({ rows: 1, cols: 1 }, device) };
  }
  if (!device.software) {
    for (const tile of ATTENTION_TILES[name][width <= 48 ? "narrow" : "wide"]) {
      const { bytes, threads } = planTile(PASSES[name], spec.dims, tile);
      if (bytes <= device.workgroupBytes && threads <= device.maxInvocations) return { tile };
    }
  }
  return { rows: rowShape(ROWS.find((shape) => width <= shape.width)!, device) };
}

/** The shape of a kernel of rows on a device. */
export function rowShape({ rows, cols }: RowCounts, { subgroups }: AttentionDevice): RowShape {
  const lanes = subgroupLanes(subgroups);
  // Without known subgroups: one SIMD register of f32 on common CPUs.
  return { rows, cols, lanes: lanes ?? 8, subgroup: lanes !== null };
}

/** The tile that makes kept weights; `tests/kernels/attention_kept_bench.ts` times others. */
export const KEPT_TILE: ProductTile = {
  rows: 64,
  cols: 64,
  depth: 16,
  threadRows: 8,
  threadCols: 4,
};

/**
 * Most bytes of kept weights, and as many of gradients. More heads at a time fill a card better: of
 * 16 384 tokens these are two heads, whose sums have 256 workgroups (with one of them a dense step of
 * `long` takes 464 ms on an H100, and with both 354).
 */
export const KEPT_BYTES = 1280 * 2 ** 20;

/**
 * Least blocks along a sequence. Those on the diagonal are computed as a whole: with two of them
 * (`tiny`) the passes that compute weights again take 2.70 ms a step, and this way 2.77.
 */
const LEAST_BLOCKS = 4;

/**
 * The parts of the heads whose weights a backward pass keeps at a time, or null where it is to compute
 * them again: on software adapters, for short sequences, for windows, of which blocks are mostly
 * empty, for lists, and where one head's weights do not fit.
 */
export function planKept(spec: AttentionSpec, device: AttentionDevice): Units[] | null {
  const { dims, extent, window, selection } = spec;
  if (device.software || window !== undefined || selection?.form === "gathered") return null;
  if (blocksAlong(extent) < LEAST_BLOCKS) return null;
  const sums = Object.values(SUMS).map(({ of }) => tallTile(headColumns(of, dims)));
  if (![KEPT_TILE, ...sums].every((t) => fitsDevice(t, device))) return null;
  const parts = partsOf(dims, extent, Math.min(KEPT_BYTES, device.maxBindingBytes));
  return parts.length > 0 ? parts : null;
}
