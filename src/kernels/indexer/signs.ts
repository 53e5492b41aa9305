/**
 * Which products of an index head's queries and keys are above 0: a bit each, as the invocations that
 * compute the scores on GPUs have them. What the gradient of ReLU needs, at a 32nd of the memory of
 * the products.
 *
 * Tiles of 64 queries and 64 keys have {@linkcode SIGN_WORDS} words for each head, with the bits of 8
 * queries and 4 neighbouring keys each: queries q … q + 3 and q + 32 … q + 35 of the tile.
 *
 * @module
 */

/** Queries and keys of a tile. */
export const SIGN_TILE = 64;

/** Words of a tile for one head. */
export const SIGN_WORDS = 128;

/** Rows of {@linkcode SIGN_WORDS} words of a chunk of queries, per sequence. */
export function signRows(queries: number, keys: number, heads: number): number {
  return Math.ceil(queries / SIGN_TILE) * Math.ceil(keys / SIGN_TILE) * heads;
}

/** WGSL of the first of the words of a tile, for a head, of the sequence `sequence`. */
export function tileSigns(
  sequence: string,
  { queryTile, keyTile, head }: { queryTile: string; keyTile: string; head: string },
  { queries, keys, heads }: { queries: string; keys: string; heads: string },
): string {
  const along = (tokens: string) => `((${tokens} + ${SIGN_TILE - 1}u) / ${SIGN_TILE}u)`;
  const queryRow = `(${sequence} * ${along(queries)} + ${queryTile})`;
  const tile = `(${queryRow} * ${along(keys)} + ${keyTile})`;
  return `u.signs_offset + (${tile} * ${heads} + ${head}) * ${SIGN_WORDS}u`;
}

/** WGSL of the word for the query at `q` and the keys from `k` on, a multiple of 4, within a tile. */
export function signWord(q: string, k: string): string {
  return `${q} % 32u / 4u * ${SIGN_TILE / 4}u + ${k} / 4u`;
}

/** WGSL of the bit of the first of four keys within the word, for the query at `q` of the tile. */
export function signBit(q: string): string {
  return `(${q} / 32u * 4u + ${q} % 4u) * 4u`;
}
