/**
 * The tiles that products on GPUs are cut into, and which of them may be the best for a shape. To
 * look for better ones on a card, run `tests/kernels/matmul_bench.ts` there and edit the table.
 *
 * @module
 */
import { type Tile, tileThreads } from "./tile_loop.ts";
import { PROCESSORS } from "../wgsl/workgroup_order.ts";

/** A tile and how fast it is. */
export interface RatedTile extends Tile {
  /** TFLOP/s of a large product, of which this tile fills the whole device. */
  readonly rate: number;
}

function tile(
  [rows, cols, depth]: [number, number, number],
  [threadRows, threadCols]: [number, number],
  rate: number,
): RatedTile {
  return { rows, cols, depth, threadRows, threadCols, rate };
}

/** The tiles to choose from, with the rates of one H100. */
export const PRODUCT_TILES: readonly RatedTile[] = [
  tile([128, 128, 16], [8, 8], 43),
  tile([96, 128, 16], [12, 8], 43),
  tile([128, 96, 16], [8, 12], 42),
  tile([64, 128, 16], [8, 8], 39.5),
  tile([128, 64, 16], [8, 8], 39.5),
  tile([64, 64, 16], [8, 4], 37),
  tile([64, 32, 16], [4, 4], 35),
  tile([32, 32, 16], [4, 4], 30),
];

/** Further tiles, to try on a new card; 30 where none has been timed. */
export const CANDIDATES: readonly RatedTile[] = [
  ...PRODUCT_TILES,
  tile([64, 64, 16], [8, 8], 42),
  tile([64, 192, 16], [8, 12], 39),
  tile([192, 64, 16], [12, 8], 39),
  tile([64, 96, 16], [8, 12], 39),
  tile([96, 64, 16], [12, 8], 39),
  tile([96, 192, 16], [12, 12], 24),
  tile([128, 128, 16], [8, 16], 30),
  tile([128, 128, 8], [8, 8], 33),
  tile([128, 128, 8], [8, 16], 35),
  tile([128, 128, 32], [8, 8], 30),
  tile([64, 128, 32], [8, 8], 30),
  tile([64, 64, 32], [8, 4], 30),
  tile([64, 64, 16], [4, 4], 30),
  tile([32, 64, 16], [4, 4], 30),
  tile([32, 64, 32], [4, 8], 30),
];

/**
 * Version of the tiled kernels: to be raised with every change of their speed, so that what was
 * measured of older ones is measured again.
 */
export const TILES_VERSION = 3;

/** A tile in one word, such as `128x128x16/8x8`. */
export function tileName(t: Tile): string {
  return `${t.rows}x${t.cols}x${t.depth}/${t.threadRows}x${t.threadCols}`;
}

/** Invocations that keep one processor busy. */
const BUSY = 256;
/** Microseconds that a product in parts costs extra: one more dispatch. */
const SECOND_PASS = 6;
/** Bytes per microsecond of the pass that adds the parts, and of their writing. */
const BANDWIDTH = 1.5e6;
/** How much longer than the best prediction a tile's may be that is still worth a trial. */
const DOUBT = 1.2;

/** Microseconds that an `m x n x k` product in `parts` parts of k should take on an H100. */
function predict(tile: RatedTile, [m, n, k]: Size, parts: number): number {
  const groups = workgroups(tile, m, n) * parts;
  // A processor works its workgroups off at its full rate only if they are enough to fill it.
  const rounds = Math.max(Math.ceil(groups / PROCESSORS), BUSY / tileThreads(tile));
  const flops = 2 * tile.rows * tile.cols * (Math.ceil(k / parts) + 2 * tile.depth);
  const traffic = parts > 1 ? SECOND_PASS + 8 * parts * m * n / BANDWIDTH : 0;
  return rounds * flops * PROCESSORS / (tile.rate * 1e6) + traffic;
}

function workgroups({ rows, cols }: Tile, m: number, n: number): number {
  return Math.ceil(m / rows) * Math.ceil(n / cols);
}

/** Rows and columns of the result, and terms of each sum. */
type Size = readonly [m: number, n: number, k: number];

/**
 * In how many parts the sums of a product are computed. The parts decide how its results are
 * rounded, so they follow from the shape alone, whatever the device and the tile that is taken
 * there: they are the best ones for the best of all tiles on an H100.
 */
export function chooseParts(size: Size, mostParts: number): number {
  let best = 1;
  let least = Infinity;
  for (const tile of PRODUCT_TILES) {
    const groups = workgroups(tile, size[0], size[1]);
    for (let parts = 1; parts <= mostParts; parts = Math.ceil(parts * 1.3)) {
      const time = predict(tile, size, parts);
      if (time < least) {
        least = time;
        best = parts;
      }
      if (groups * parts > 4 * PROCESSORS) break;
    }
  }
  return best;
}

/**
 * The tiles that a product may take the least time with, the most promising first. All give the
 * same bits: each result is a chain of `fma` over rising k, whatever the tile.
 */
export function rankTiles(tiles: readonly RatedTile[], size: Size, parts: number): RatedTile[] {
  const ranked = tiles
    .map((tile) => ({ tile, time: predict(tile, size, parts) }))
    .sort((a, b) => a.time - b.time);
  return ranked.filter(({ time }) => time <= DOUBT * ranked[0].time).map(({ tile }) => tile);
}
