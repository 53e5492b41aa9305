/**
 * How kernels that reduce over the columns of each row spread over a grid.
 *
 * @module
 */
import { foldGrid } from "./kernel.ts";
import { MOST_ITERATIONS, rounds } from "./loops.ts";

/** The common parts of a kernel that reduces rows. */
export interface RowGroups {
  readonly workgroup: number;
  readonly grid: [number, number, number];
  /** Invocations that share a row: a power of two. */
  readonly lanes: number;
  /** Rounds in which they visit the units of a row. */
  readonly rounds: number;
  /**
   * WGSL that declares `row`, `sub` (place among the row's lanes), `live` (whether the row exists)
   * and `n` (column units to visit: 0 where the row does not exist, as all must reach barriers).
   */
  readonly prelude: string;
  /** WGSL of a fold over a row's lanes, `name(lane, value)`, in a fixed order. */
  reduce(name: string, type: "f32" | "vec2f", fold: (a: string, b: string) => string): string;
}

/**
 * Spreads `rows` rows of `units` column units. The grid's first two dimensions are used. On
 * software adapters a row is left to one invocation, as barriers cost more there than they bring, if
 * its loops, `passes` of them over all units, are not too long for that.
 */
export function rowGroups(
  rows: number,
  units: number,
  software: boolean,
  passes: number,
): RowGroups {
  const lanes = software ? fewestLanes(units, passes) : lanesFor(units);
  const workgroup = software ? 32 : 256;
  const perGroup = workgroup / lanes;
  return {
    workgroup,
    grid: foldGrid(Math.ceil(rows / perGroup)),
    lanes,
    rounds: rounds(units, lanes),
    prelude: `
  let row = (wid.x + wid.y * groups.x) * ${perGroup}u + lane / ${lanes}u;
  let sub = lane % ${lanes}u;
  let live = row < u.rows;
  let n = select(0u, u.cols, live);`,
    reduce: (name, type, fold) =>
      lanes === 1
        ? `fn ${name}(lane: u32, value: ${type}) -> ${type} { return value; }`
        : segmentedReduce(name, type, lanes, workgroup, fold),
  };
}

/** The least power of two, up to 32, with which loops are short enough. */
function fewestLanes(units: number, passes: number): number {
  let lanes = 1;
  while (lanes < 32 && passes * rounds(units, lanes) > MOST_ITERATIONS) lanes *= 2;
  return lanes;
}

/**
 * The power of two from 32 to 256 that leaves the fewest lanes idle, within 8 rounds: fewer would
 * suit narrow rows, but every number of lanes is one more kernel to compile.
 */
function lanesFor(units: number): number {
  let best = 256;
  let bestUse = 0;
  for (const lanes of [256, 128, 64, 32]) {
    const rounds = Math.ceil(units / lanes);
    const use = units / (rounds * lanes);
    if (use > bestUse && (rounds <= 8 || lanes === 256)) [best, bestUse] = [lanes, use];
  }
  return best;
}

function segmentedReduce(
  name: string,
  type: string,
  lanes: number,
  workgroup: number,
  fold: (a: string, b: string) => string,
): string {
  const shared = `${name}_shared`;
  const steps: string[] = [];
  for (let half = lanes / 2; half >= 1; half /= 2) {
    const sum = fold(`${shared}[lane]`, `${shared}[lane + ${half}u]`);
    steps.push(`  if (sub < ${half}u) { ${shared}[lane] = ${sum}; }`, "  workgroupBarrier();");
  }
  return `var<workgroup> ${shared}: array<${type}, ${workgroup}>;
fn ${name}(lane: u32, value: ${type}) -> ${type} {
  let sub = lane % ${lanes}u;
  workgroupBarrier();
  ${shared}[lane] = value;
  workgroupBarrier();
${steps.join("\n")}
  return ${shared}[lane - sub];
}`;
}

/** Fold for sums. */
export function plus(a: string, b: string): string {
  return `${a} + ${b}`;
}

/** Fold for maxima. */
export function larger(a: string, b: string): string {
  return `max(${a}, ${b})`;
}
