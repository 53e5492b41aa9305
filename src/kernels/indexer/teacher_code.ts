/**
 * What the families of kernels of the indexer's teacher have in common.
 *
 * @module
 */

/**
 * What a family of kernels adds: code that gives every pair of a tile to
 * `store(query, key, sum over heads, q_row)`, or, from tiles, four neighbouring keys, the first a
 * multiple of 4, to `store_four`. In scope: `first_query` and `first_key` of the tile,
 * counted in the sequence's chunk; `q_row` and `k_row`, the sequence's first rows; `visible`,
 * whether any pair of the tile is.
 */
export interface TargetCode {
  readonly declarations: string;
  readonly body: string;
  readonly workgroup: number;
  readonly tileRows: number;
  readonly tileCols: number;
  /** Most iterations of an invocation. */
  readonly iterations: number;
}
