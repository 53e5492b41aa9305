/**
 * Gradients of the lightning indexer along lists, from the compact gradient of its scores. The
 * products of queries and keys are recomputed. One pass goes over the keys of each query, for some
 * of its heads at a time; the other over the queries of each key, with all their heads. Slots have
 * sums of their own, which are added up in the end, in a fixed order.
 *
 * @module
 */
import type { GatherGradientSpec } from "./gradient_spec.ts";
import { indexDims } from "../indexer.ts";
import { isAligned, loader, storer } from "../../attention/heads.ts";
import {
  type GatherTeam,
  gatherTeam,
  listedPairs,
  mergingTeam,
  partialSums,
  placeInTeam,
  withShortLoops,
} from "./team.ts";
import { keyIterations, queryIterations, sumsOfKey, sumsOfQuery } from "./sums.ts";
import { Float, foldGrid, type Kernel, makeKernel } from "../../wgsl/kernel.ts";
import { type Layout, layoutUniforms, type Operand, read, write } from "../../wgsl/operand.ts";

/** Most heads of a query that an invocation has at a time, and most `vec4`s of them. */
const HEADS = { most: 4, vec4s: 8 };

/** Most keys that it has at a time, for each of these heads. */
const KEYS = 2;

/** Code of a pass; `row` and `batch_row` are in scope. */
interface GatherCode {
  readonly team: GatherTeam;
  readonly iterations: number;
  readonly declarations: readonly string[];
  readonly body: readonly string[];
}

/**
 * Gradients of the queries and of the head weights, as of `indexGradientQ` with the keys s of the
 * list of t alone. indices i32 [rows, topk]; gradScores [rows, width]: that of the i-th key of the
 * list, read up to t and `width`; it is 0 where the list is over before. gradQ [rows, heads · dim],
 * gradW [rows, heads].
 */
export function gatherGradientQ(
  spec: GatherGradientSpec,
  { indices, gradScores }: { indices: Layout; gradScores: Layout },
  gradQ: Layout,
  gradW: Layout,
): Kernel {
  const { indexer: { heads, dim }, capabilities } = spec;
  const columns = Math.ceil(dim / 4);
  const { lanes } = gatherTeam("q", columns, KEYS, capabilities);
  const side =
    [HEADS.most, 2].find((n) => n <= heads && n * Math.ceil(columns / lanes) <= HEADS.vec4s) ?? 1;
  const sums = (each: number) => each * side;
  const team = mergingTeam("q", { columns, most: KEYS, sums }, capabilities);
  const lists = { indices: read(indices, "i32"), grad_scores: read(gradScores) };
  const units = Math.ceil(heads / side);
  const width = gradScores.cols;
  const rest = { grad_w: write(gradW) };
  return passKernel("q", spec, { lists, gradient: gradQ, rest, units, width }, {
    team,
    iterations: queryIterations({ width, columns, side }, team),
    declarations: [
      ...partialSums(sums(team.each), team),
      ...team.slots > 1 ? [`var<workgroup> weights: array<f32, ${team.slots}>;`] : [],
    ],
    body: sumsOfQuery(spec, team, side),
  });
}

/**
 * Gradient of the keys, as of `indexGradientK`, with the queries t alone in whose lists s is, and
 * summed over the heads. starts and queries are those of `listQueries`; listed [rows, width] has
 * the gradient of the scores in their order. gradK [rows, dim].
 */
export function gatherGradientK(
  spec: GatherGradientSpec,
  { starts, queries, listed }: { starts: Layout; queries: Layout; listed: Layout },
  gradK: Layout,
): Kernel {
  const { indexer: { heads, dim }, seqLen, capabilities } = spec;
  const columns = Math.ceil(dim / 4);
  const common = { columns, most: heads, sums: (each: number) => each };
  const whole = mergingTeam("k", common, capabilities);
  const iterations = (team: GatherTeam) => keyIterations({ seqLen, heads, columns }, team);
  const team = capabilities.software ? withShortLoops(whole, iterations) : whole;
  const lists = {
    starts: read(starts, "u32"),
    queries: read(queries, "i32"),
    listed: read(listed),
  };
  const width = listed.cols;
  return passKernel("k", spec, { lists, gradient: gradK, rest: {}, units: 1, width }, {
    team,
    iterations: iterations(team),
    declarations: partialSums(team.each, team),
    body: sumsOfKey(spec, team),
  });
}

function passKernel(
  pass: "q" | "k",
  spec: GatherGradientSpec,
  { lists, gradient, rest, units, width }: {
    lists: Record<string, Operand>;
    gradient: Layout;
    /** What else is written. */
    rest: Record<string, Operand>;
    /** Workgroups of a row. */
    units: number;
    /** Most keys of a query. */
    width: number;
  },
  { team, iterations, declarations, body }: GatherCode,
): Kernel {
  const { q, k, w, seqLen, indexer } = spec;
  const { heads, dim, scale } = indexer;
  const dims = indexDims(indexer);
  const aligned = isAligned(dims, [q, k, gradient]);
  const type = aligned ? "vec4f" : "f32";
  const operands = {
    q: read(q, type),
    k: read(k, type),
    w: read(w),
    ...lists,
    [`grad_${pass}`]: write(gradient, type),
    ...rest,
  };
  const columns = Math.ceil(dim / 4);
  return makeKernel({
    name: `index_gather_grad_${pass}`,
    shape: `${q.rows}x${width}x${heads}x${dim}`,
    operands,
    uniforms: {
      rows: q.rows,
      width,
      seq_len: seqLen,
      scale: new Float(scale),
      ...layoutUniforms(operands),
    },
    workgroup: team.lanes * team.slots,
    grid: foldGrid(q.rows * units),
    iterations,
    declarations: [
      loader("q", dims, aligned),
      loader("k", dims, aligned),
      storer(`grad_${pass}`, dims, aligned, new Set()),
      `var<workgroup> merged: array<vec4f, ${team.slots * columns}>;`,
      ...declarations,
    ].join("\n"),
    body: `
let index = wid.x + wid.y * groups.x;
if (index >= u.rows * ${units}u) { return; }
let row = index / ${units}u;
let batch_row = row - row % u.seq_len;
${placeInTeam(team).join("\n")}
${body.join("\n")}`,
    flops: listedPairs(q.rows, seqLen, width) * heads * 4 * dim,
  });
}
