/**
 * What fits into workgroup memory: shapes of kernels are listed in order of preference, and the first
 * that fits the device is taken.
 *
 * @module
 */

/** Room that a device has for a workgroup. */
export interface WorkgroupRoom {
  readonly workgroupBytes: number;
  readonly maxInvocations: number;
}

/** What a workgroup takes of it. */
export interface WorkgroupNeeds {
  /** Of workgroup memory. */
  readonly bytes: number;
  /** Invocations. */
  readonly threads: number;
}

/** The first of some tiles that the device has room for, or null. */
export function firstThatFits<Tile>(
  tiles: readonly Tile[],
  needsOf: (tile: Tile) => WorkgroupNeeds,
  { workgroupBytes, maxInvocations }: WorkgroupRoom,
): Tile | null {
  return tiles.find((tile) => {
    const { bytes, threads } = needsOf(tile);
    return bytes <= workgroupBytes && threads <= maxInvocations;
  }) ?? null;
}

/** The odd number from `n` on: rows of so many `vec4`s lie in different banks of memory. */
export function odd(n: number): number {
  return n % 2 === 0 ? n + 1 : n;
}
