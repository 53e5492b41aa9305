/**
 * Which tile of workgroup memory a kernel for GPUs takes: they are listed in order of preference,
 * and the first that fits the device is taken. And in which order its workgroups are best.
 *
 * @module
 */

/** Processors of the device. WebGPU does not tell; an H100 has 132. */
export const PROCESSORS = 132;

/**
 * WGSL that declares `order` from `index`, below `count`: the place of a workgroup in a list in which
 * the longest come first. A device gives each processor a workgroup, then each a second, and so on:
 * every other round goes backwards, so that who got a long one next gets a short one.
 */
export function balancedOrder(count: string): string {
  return `let round = index / ${PROCESSORS}u;
let place = index % ${PROCESSORS}u;
let last = min(${PROCESSORS}u, ${count} - round * ${PROCESSORS}u) - 1u;
let order = round * ${PROCESSORS}u + select(place, last - place, round % 2u == 1u);`;
}

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
