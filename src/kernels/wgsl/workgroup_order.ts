/**
 * In which order a kernel for GPUs takes workgroups that differ in length.
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
