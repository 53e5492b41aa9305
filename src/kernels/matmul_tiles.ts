/**
 * The tiles that products on GPUs are cut into, and which one is the best for a shape. To tune for
 * a card, run `tests/kernels/matmul_bench.ts` there and edit the table.
 *
 * @module
 */
import { type Tile, tileThreads } from "./matmul_tiled.ts";

/** A tile and how fast it is. */
export interface RatedTile extends Tile {
  /** TFLOP/s of a large product, of which this tile fills the whole device. */
  readonly rate: number;
}

function tile(
  [rows, cols, depth]: [number, number, number],
  [threadRows, threadCols]: [number, number],
  buffers: 1 | 2,
  rate: number,
): RatedTile {
  return { rows, cols, depth, threadRows, threadCols, buffers, rate };
}

/** The tiles to choose from, with the rates of one H100. */
export const TILES: readonly RatedTile[] = [
  tile([128, 128, 8], [8, 16], 2, 39.5),
  tile([64, 128, 16], [8, 8], 1, 36.5),
  tile([128, 64, 16], [8, 8], 1, 35),
  tile([64, 64, 16], [8, 4], 1, 26),
  tile([32, 32, 16], [4, 4], 1, 14),
];

/** Further tiles, to try on a new card. */
export const CANDIDATES: readonly RatedTile[] = [
  ...TILES,
  tile([128, 256, 8], [8, 16], 2, 30),
  tile([128, 256, 16], [8, 16], 1, 30),
  tile([256, 128, 8], [16, 8], 2, 30),
  tile([128, 128, 8], [8, 8], 1, 30),
  tile([128, 128, 8], [8, 8], 2, 30),
  tile([128, 128, 32], [8, 8], 1, 30),
  tile([128, 128, 16], [8, 8], 1, 34),
  tile([128, 128, 16], [8, 16], 1, 30),
  tile([128, 64, 8], [8, 8], 2, 30),
  tile([64, 64, 16], [4, 4], 1, 30),
  tile([64, 64, 16], [8, 4], 2, 30),
  tile([64, 64, 16], [8, 8], 1, 30),
  tile([64, 64, 32], [8, 4], 1, 30),
  tile([32, 64, 16], [4, 4], 1, 30),
  tile([32, 64, 32], [4, 8], 1, 30),
];

/** Processors of the device. WebGPU does not tell; an H100 has 132. */
const PROCESSORS = 132;
/** Invocations that keep one processor busy. */
const BUSY = 384;
/** Microseconds that a product in parts costs extra: one more dispatch. */
const SECOND_PASS = 6;
/** Bytes per microsecond of the pass that adds the parts, and of their writing. */
const BANDWIDTH = 1.5e6;

/**
 * The tile, and the number of parts of k, that an `m x n x k` product should take the least time
 * with.
 */
export function chooseTile(
  tiles: readonly RatedTile[],
  m: number,
  n: number,
  k: number,
  mostParts: number,
): { tile: RatedTile; parts: number } {
  let best = { tile: tiles[0], parts: 1 };
  let least = Infinity;
  for (const tile of tiles) {
    const groups = Math.ceil(m / tile.rows) * Math.ceil(n / tile.cols);
    for (let parts = 1; parts <= mostParts; parts = Math.ceil(parts * 1.3)) {
      // A processor works its workgroups off at its full rate only if they are enough to fill it.
      const rounds = Math.max(Math.ceil(groups * parts / PROCESSORS), BUSY / tileThreads(tile));
      const flops = 2 * tile.rows * tile.cols * (Math.ceil(k / parts) + 2 * tile.depth);
      const traffic = parts > 1 ? SECOND_PASS + 8 * parts * m * n / BANDWIDTH : 0;
      const time = rounds * flops * PROCESSORS / (tile.rate * 1e6) + traffic;
      if (time < least) {
        least = time;
        best = { tile, parts };
      }
      if (groups * parts > 4 * PROCESSORS) break;
    }
  }
  return best;
}
