/**
 * Sizes of the attention kernels for GPUs: what a tile needs of workgroup memory, and which
 * invocation has which part of the results.
 *
 * @module
 */
import { headColumns, type HeadDims } from "./heads.ts";
import type { Pass } from "./pass.ts";
import { odd } from "../wgsl/tile_choice.ts";

/** Tile of a pass. It has `lanesY * rows` rows and `lanesX * cols` columns. */
export interface AttentionTile {
  /** Invocations along the columns. */
  readonly lanesX: number;
  /** Invocations along the rows. */
  readonly lanesY: number;
  /** Rows per invocation. */
  readonly rows: number;
  /** Columns per invocation. The more rows and columns, the fewer reads of workgroup memory. */
  readonly cols: 4 | 8;
  /** Most `vec4` columns of the rows' heads that are in workgroup memory at a time. */
  readonly chunk: number;
  /** Most steps of an inner loop that are written out. */
  readonly unroll: number;
}

/** Sizes that follow from a tile and the widths of the heads. */
export interface TilePlan {
  readonly threads: number;
  readonly tileRows: number;
  readonly tileCols: number;
  /** `vec4`s from row to row of the row side; odd, so that rows lie in different banks. */
  readonly pitch: number;
  /** Whether the row side is read once and stays. If not, the weights take over its memory. */
  readonly resident: boolean;
  /** Columns whose weights are handed on together. */
  readonly group: number;
  /** Rows and pitch of the arrays of the column sides. */
  readonly colSides: readonly Readonly<{ name: string; rows: number; pitch: number }>[];
  /** Pitch of the weights where they have memory of their own. */
  readonly weightPitch: number;
  /** Workgroup memory. */
  readonly bytes: number;
}

/** Works out sizes and workgroup memory of a tile. */
export function planTile(pass: Pass, dims: HeadDims, tile: AttentionTile): TilePlan {
  const tileRows = tile.lanesY * tile.rows;
  const tileCols = tile.cols * tile.lanesX;
  const group = 4 * tile.lanesX;
  const widest = Math.max(...pass.rows.map((t) => headColumns(t, dims)));
  const resident = pass.rows.length === 1 && tile.chunk >= widest;
  const weights = pass.sums.length * tile.lanesX;
  const chunk = Math.min(tile.chunk, widest);
  const pitch = odd(resident ? chunk : Math.max(chunk, weights));
  const colSides = pass.cols.map((tensor) => ({
    name: `${tensor}_side`,
    rows: tileCols,
    pitch: odd(headColumns(tensor, dims)),
  }));
  const weightPitch = odd(weights);
  // The forward pass also has a maximum per invocation and row, and a factor per row.
  const f32s = pass.name === "attention" ? tileRows * (tile.lanesX + 1) : 0;
  const vec4s = tileRows * (pitch + (resident ? weightPitch : 0)) +
    colSides.reduce((sum, { rows, pitch }) => sum + rows * pitch, 0);
  return {
    threads: tile.lanesX * tile.lanesY,
    tileRows,
    tileCols,
    pitch,
    resident,
    group,
    colSides,
    weightPitch,
    bytes: 16 * vec4s + 4 * f32s,
  };
}

/** How the invocations share out an accumulated result. */
export interface Shares {
  readonly into: string;
  readonly lanesX: number;
  readonly lanesY: number;
  readonly rows: number;
  readonly cols: number;
}

/** Shares with the least work and traffic for `columns` vec4 columns. */
export function shareOut(into: string, columns: number, tileRows: number, threads: number): Shares {
  let best: Shares | null = null;
  let least = Infinity;
  for (let lanesX = 1; lanesX <= threads; lanesX *= 2) {
    const lanesY = threads / lanesX;
    if (!Number.isInteger(lanesY) || tileRows % lanesY !== 0) continue;
    const rows = tileRows / lanesY;
    const cols = Math.ceil(columns / lanesX);
    // Per four columns of scores: multiplications, and loads of four times their cost.
    const cost = 16 * rows * cols + 4 * (rows + 4 * cols);
    if (cost < least) [best, least] = [{ into, lanesX, lanesY, rows, cols }, cost];
  }
  if (!best) throw new RangeError(`Cannot share ${tileRows} rows among ${threads} invocations`);
  return best;
}
