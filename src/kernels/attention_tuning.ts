/**
 * Which kernels of attention run where: the tables to tune. `tests/kernels/attention_bench.ts`
 * times the alternatives.
 *
 * @module
 */
import { queryWidth } from "./attention_access.ts";
import { type AttentionSpec, PASSES } from "./attention_pass.ts";
import type { RowShape } from "./attention_rows.ts";
import { planTile, type Tile } from "./attention_tile_plan.ts";

/** Capabilities that the choice of a kernel depends on. */
export interface AttentionDevice {
  readonly software: boolean;
  readonly workgroupBytes: number;
  readonly maxInvocations: number;
}

/** Names of the passes that {@linkcode TILES} and {@linkcode ROWS} tune. */
export type PassName = keyof typeof PASSES;

/** A way to run a pass: by tiles in workgroup memory, or by rows in registers. */
export type AttentionPlan = { readonly tile: Tile } | { readonly rows: RowShape };

/** Small tiles for devices with little workgroup memory, and for wide heads. */
const SMALL_TILES: readonly Tile[] = [
  { lanesX: 8, lanesY: 8, rows: 4, chunk: 8, unroll: 8 },
  { lanesX: 4, lanesY: 8, rows: 4, chunk: 4, unroll: 4 },
  { lanesX: 4, lanesY: 8, rows: 2, chunk: 4, unroll: 4 },
];

/**
 * Tiles of the GPU kernels in order of preference; the first that fits the device is taken, and
 * if none does (very wide heads) the kernels without workgroup memory are. Heads are narrow if
 * `nope + rope` is at most 48.
 */
export const TILES: Record<PassName, Record<"narrow" | "wide", readonly Tile[]>> = {
  forward: {
    narrow: [{ lanesX: 8, lanesY: 16, rows: 4, chunk: 12, unroll: 12 }, ...SMALL_TILES],
    wide: [{ lanesX: 8, lanesY: 16, rows: 4, chunk: 12, unroll: 12 }, ...SMALL_TILES],
  },
  gradQ: {
    narrow: [{ lanesX: 8, lanesY: 16, rows: 4, chunk: 12, unroll: 12 }, ...SMALL_TILES],
    wide: [{ lanesX: 8, lanesY: 16, rows: 4, chunk: 12, unroll: 12 }, ...SMALL_TILES],
  },
  gradKv: {
    narrow: [{ lanesX: 8, lanesY: 16, rows: 4, chunk: 12, unroll: 12 }, ...SMALL_TILES],
    wide: [{ lanesX: 8, lanesY: 16, rows: 4, chunk: 16, unroll: 8 }, ...SMALL_TILES],
  },
};

/**
 * Rows and columns per step of the kernels for software adapters, by the largest `nope + rope`:
 * more rows are faster, until the compiler needs seconds for the code.
 */
export const ROWS: readonly (RowShape & { readonly width: number })[] = [
  { width: 24, rows: 8, cols: 2 },
  { width: 48, rows: 4, cols: 1 },
  { width: 96, rows: 2, cols: 1 },
  { width: Infinity, rows: 1, cols: 1 },
];

/** Chooses how a pass runs on a device. */
export function planAttention(
  name: PassName,
  spec: AttentionSpec,
  device: AttentionDevice,
): AttentionPlan {
  const width = queryWidth(spec.dims);
  if (!device.software) {
    for (const tile of TILES[name][width <= 48 ? "narrow" : "wide"]) {
      const { bytes, threads } = planTile(PASSES[name], spec.dims, tile);
      if (bytes <= device.workgroupBytes && threads <= device.maxInvocations) return { tile };
    }
  }
  const { rows, cols } = ROWS.find((shape) => width <= shape.width)!;
  return { rows: { rows, cols } };
}
