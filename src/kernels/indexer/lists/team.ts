/**
 * What the kernels of the indexer's loss along lists have in common. What they make of pairs of a
 * query and a key is *compact*: `[rows, width]`, column i for the i-th key of the query's list, and
 * so the loss over a selection costs seqLen * topk instead of seqLen².
 *
 * As in `attention/lists.ts`, `lanes` invocations read one token together, consecutive `vec4`s
 * each, and a team has several tokens under way, `slots` side by side. On software adapters a token
 * has one lane, and the slots fill a SIMD register.
 *
 * @module
 */
import type { Capabilities } from "../../wgsl/device.ts";
import { range } from "../../wgsl/kernel.ts";
import { MOST_ITERATIONS } from "../../wgsl/loops.ts";
import { firstThatFits } from "../../wgsl/tile_choice.ts";
import type { HeadTensor } from "../../attention/heads.ts";

/** Tuning of a kernel. */
export interface GatherTeam {
  /** Invocations that share a token: a power of two. */
  readonly lanes: number;
  /** Tokens side by side. */
  readonly slots: number;
  /** What a slot has at a time: so many keys, or so many heads of one query. */
  readonly each: number;
  /** Whether lanes add up products by subgroup shuffles, or else through workgroup memory. */
  readonly shuffle: boolean;
}

/**
 * Invocations of a team: for the pairs of a query, for its gradients, and for those of a key, which
 * may be in the lists of most queries.
 */
const THREADS = {
  gpu: { pairs: 128, q: 64, k: 256 },
  software: { pairs: 8, q: 8, k: 8 },
};

/** Most `vec4`s that an invocation reads at a time. */
const READ = 16;

/** Pairs of a query and a key of its list, if all lists are as long as they may be. */
export function listedPairs(rows: number, seqLen: number, width: number): number {
  return rows / seqLen * width * (seqLen - (width - 1) / 2);
}

/** The team for heads of `columns` `vec4`s, of which a slot may have `most` at a time. */
export function gatherTeam(
  pass: keyof typeof THREADS.gpu,
  columns: number,
  most: number,
  { software, subgroups }: Capabilities,
): GatherTeam {
  const perLane = (lanes: number) => Math.ceil(columns / lanes);
  const lanes = software ? 1 : 4 * perLane(4) < 8 * perLane(8) ? 4 : 8;
  return {
    lanes,
    slots: THREADS[software ? "software" : "gpu"][pass] / lanes,
    each: [4, 2].find((n) => n <= most && n * perLane(lanes) <= READ) ?? 1,
    shuffle: subgroups !== null && subgroups.min >= lanes,
  };
}

/** {@linkcode gatherTeam} that adds up its slots, `sums` products at a time, in the end. */
export function mergingTeam(
  pass: "q" | "k",
  { columns, most, sums }: { columns: number; most: number; sums: (each: number) => number },
  capabilities: Capabilities,
): GatherTeam {
  const team = gatherTeam(pass, columns, most, capabilities);
  const teams = [1, 2, 4, 8].map((part) => ({ ...team, slots: Math.ceil(team.slots / part) }));
  const needs = (team: GatherTeam) => ({
    bytes: team.slots * (16 * columns + 4) + partialBytes(sums(team.each), team),
    threads: team.lanes * team.slots,
  });
  return firstThatFits(teams, needs, capabilities) ?? teams[teams.length - 1];
}

/** So many slots that an invocation's loops are not too long. */
export function withShortLoops(
  team: GatherTeam,
  iterations: (team: GatherTeam) => number,
): GatherTeam {
  let longer = team;
  while (iterations(longer) > MOST_ITERATIONS) longer = { ...longer, slots: 2 * longer.slots };
  return longer;
}

/** The `vec4` columns of a head that an invocation has: `sub`, `sub + lanes`, … */
export function ownColumns(columns: number, { lanes }: GatherTeam): number[] {
  return range(Math.ceil(columns / lanes));
}

/** WGSL of a lane's column `c`. */
export function columnOf(c: number, { lanes }: GatherTeam): string {
  return lanes === 1 ? `${c}u` : `sub + ${c * lanes}u`;
}

/** `statement` for a lane's column `c` if the head has it. */
export function guarded(columns: number, c: number, team: GatherTeam, statement: string): string {
  const { lanes } = team;
  if ((c + 1) * lanes <= columns) return statement;
  return `if (sub < ${columns - c * lanes}u) { ${statement} }`;
}

/** Reads a lane's columns of a head into `<name>_0`, `<name>_1`, …; past the end are zeros. */
export function loadHead(
  name: string,
  { tensor, row, head, columns }: {
    tensor: HeadTensor;
    row: string;
    head: string;
    columns: number;
  },
  team: GatherTeam,
): string[] {
  return ownColumns(columns, team).flatMap((c) => [
    `var ${name}_${c} = vec4f();`,
    guarded(
      columns,
      c,
      team,
      `${name}_${c} = load_${tensor}(${row}, ${head}, ${columnOf(c, team)});`,
    ),
  ]);
}

/** WGSL of a lane's part in the product of two heads. */
export function partialDot(a: string, b: string, columns: number, team: GatherTeam): string {
  return ownColumns(columns, team).map((c) => `dot(${a}_${c}, ${b}_${c})`).join(" + ");
}

/** `sub` and `slot` of an invocation. */
export function placeInTeam({ lanes, shuffle }: GatherTeam): string[] {
  if (lanes === 1) return ["let slot = lane;"];
  return [
    `let sub = lane % ${lanes}u;`,
    `let slot = lane / ${lanes}u;`,
    ...shuffle ? [] : ["var turn = 0u;"],
  ];
}

/** `body` for one of the lanes of a slot. */
export function byOneLane({ lanes }: GatherTeam, body: string): string {
  return lanes === 1 ? body : `if (sub == 0u) { ${body} }`;
}

const needsMemory = ({ lanes, shuffle }: GatherTeam) => lanes > 1 && !shuffle;

function partialBytes(count: number, team: GatherTeam): number {
  return needsMemory(team) ? 32 * Math.ceil(count / 4) * team.lanes * team.slots : 0;
}

/** Workgroup memory of {@linkcode sumOverLanes}, for `count` variables. */
export function partialSums(count: number, team: GatherTeam): string[] {
  if (!needsMemory(team)) return [];
  // Two of each: while some lanes still read one, others already write the next.
  const length = 2 * team.lanes * team.slots;
  return range(Math.ceil(count / 4)).map((i) =>
    `var<workgroup> partial${i}: array<vec4f, ${length}>;`
  );
}

/** Adds up the variables `names` over the lanes of a slot; all lanes get the sums. */
export function sumOverLanes(names: readonly string[], team: GatherTeam): string[] {
  const { lanes, slots } = team;
  if (!needsMemory(team)) {
    const steps = range(Math.log2(lanes)).map((i) => 2 ** i);
    return names.flatMap((name) =>
      steps.map((by) => `${name} += subgroupShuffleXor(${name}, ${by}u);`)
    );
  }
  const parts = range(Math.ceil(names.length / 4));
  return [
    ...parts.map((i) => {
      const four = range(4).map((j) => names[4 * i + j] ?? "0.0");
      return `partial${i}[turn + lane] = vec4f(${four.join(", ")});`;
    }),
    "workgroupBarrier();",
    ...parts.map((i) => {
      const all = range(lanes).map((k) => `partial${i}[turn + lane - sub + ${k}u]`);
      return `let whole${i} = ${all.join(" + ")};`;
    }),
    ...names.map((name, i) => `${name} = whole${Math.floor(i / 4)}.${"xyzw"[i % 4]};`),
    `turn = ${lanes * slots}u - turn;`,
  ];
}
