/**
 * Index scores, and the indexer's teacher, of the keys in the list of each query. A slot keeps a
 * few keys and goes through the heads, so that a key that all heads share is read once.
 *
 * @module
 */
import { activated, indexDims, type Indexer, type Teacher } from "../indexer.ts";
import type { Capabilities } from "../../wgsl/device.ts";
import { Float, foldGrid, type Kernel, makeKernel, range } from "../../wgsl/kernel.ts";
import { at } from "../../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, read, readAll, write } from "../../wgsl/operand.ts";
import {
  headColumns,
  type HeadDims,
  isAligned,
  loader,
  queryWidth,
} from "../../attention/heads.ts";
import {
  byOneLane,
  gatherTeam,
  listedPairs,
  loadHead,
  partialDot,
  partialSums,
  placeInTeam,
  sumOverLanes,
} from "./team.ts";

/** Score past the end of a list: its exponential is 0, and differences of two are numbers. */
const HIDDEN_SCORE = -1e30;

/** What both kernels go by. */
interface Lists {
  /** i32 [rows, topk]: positions in the sequence, ascending, then -1. */
  readonly indices: Layout;
  /** Tokens of a sequence. */
  readonly seqLen: number;
  readonly capabilities: Capabilities;
}

/** What {@linkcode gatherScores} reads and writes. */
export interface GatherScoresSpec extends Lists {
  /** [rows, heads · dim]. */
  readonly q: Layout;
  /** [rows, dim]. */
  readonly k: Layout;
  /** [rows, heads]. */
  readonly w: Layout;
  /** [rows, width]: the result; width is at least the length of the longest list. */
  readonly scores: Layout;
  readonly indexer: Indexer;
}

/**
 * scores[t, i] = scale · Σ_j w[t, j] · act(q_j[t] · k[s]) for the i-th key s of the list of t, and
 * past its end so low a number that a softmax gives it 0.
 */
export function gatherScores(spec: GatherScoresSpec): Kernel {
  const { q, k, w, scores, indexer, ...lists } = spec;
  return pairsKernel({
    ...lists,
    name: `index_gather_scores_${indexer.activation}`,
    dims: indexDims(indexer),
    matrices: { q, k },
    perHead: { w },
    result: scores,
    uniforms: { factor: new Float(indexer.scale), hidden: new Float(HIDDEN_SCORE) },
    term: (product, weight) => `${weight} * ${activated(indexer, product)}`,
  });
}

/** What {@linkcode gatherTarget} reads and writes. */
export interface GatherTargetSpec extends Lists {
  /** [rows, heads · (nope + rope)]. */
  readonly q: Layout;
  /** [rows, heads · (nope + value)]. */
  readonly kv: Layout;
  /** [rows, rope]. */
  readonly kPe: Layout;
  /** [rows, heads]. */
  readonly lse: Layout;
  /** [rows, width]: the result; width is at least the length of the longest list. */
  readonly target: Layout;
  readonly teacher: Teacher;
}

/**
 * target[t, i] = (1 / heads) · Σ_h exp(scale · (q_h[t] · k_h[s]) − lse_h[t]) for the i-th key s of
 * the list of t, and 0 past its end.
 */
export function gatherTarget(spec: GatherTargetSpec): Kernel {
  const { q, kv, kPe, lse, target, teacher: { dims, scale }, ...lists } = spec;
  return pairsKernel({
    ...lists,
    name: "index_gather_target",
    dims,
    matrices: { q, kv, k_pe: kPe },
    perHead: { lse },
    result: target,
    uniforms: {
      factor: new Float(1 / dims.heads),
      hidden: new Float(0),
      scale_log2: new Float(scale * Math.LOG2E),
    },
    term: (product, lse) => `exp2(fma(${product}, u.scale_log2, ${lse} * -${Math.LOG2E}))`,
  });
}

/** What a kernel sums over the heads of each pair. */
interface Pairs extends Lists {
  readonly name: string;
  readonly dims: HeadDims;
  readonly matrices: Record<string, Layout>;
  /** [rows, heads]: a number for each query and head. */
  readonly perHead: Record<string, Layout>;
  readonly result: Layout;
  /** The `factor` of the sums, what is `hidden` past the end of a list, and what `term` needs. */
  readonly uniforms: Record<"factor" | "hidden", Float> & Record<string, Float>;
  /** WGSL of what a head adds. */
  term(product: string, number: string): string;
}

function pairsKernel(pairs: Pairs): Kernel {
  const { name, dims, matrices, perHead, indices, result, seqLen, capabilities } = pairs;
  const aligned = isAligned(dims, Object.values(matrices));
  const columns = headColumns("q", dims);
  const team = gatherTeam("pairs", columns, result.cols, capabilities);
  const { lanes, slots, each } = team;
  const keys = range(each);
  const blocks = Math.ceil(result.cols / (slots * each));
  const [number] = Object.keys(perHead);
  const isShared = dims.kvHeads === 1;
  const loadKeys = keys.flatMap((n) =>
    loadHead(
      `k${n}`,
      { tensor: "k", row: `token_row${n}`, head: isShared ? "0u" : "head", columns },
      team,
    )
  );
  const operands = {
    ...readAll(matrices, aligned ? "vec4f" : "f32"),
    ...readAll(perHead),
    indices: read(indices, "i32"),
    result: write(result),
  };
  return makeKernel({
    name,
    shape: `${result.rows}x${result.cols}x${dims.heads}x${queryWidth(dims)}`,
    operands,
    uniforms: {
      rows: result.rows,
      width: result.cols,
      blocks,
      seq_len: seqLen,
      heads: dims.heads,
      ...pairs.uniforms,
      ...layoutUniforms(operands),
    },
    workgroup: lanes * slots,
    grid: foldGrid(blocks * result.rows),
    iterations: dims.heads,
    declarations: [
      loader("q", dims, aligned),
      loader("k", dims, aligned),
      ...partialSums(each, team),
    ].join("\n"),
    body: `
let index = wid.x + wid.y * groups.x;
if (index >= u.blocks * u.rows) { return; }
let row = index / u.blocks;
let t = row % u.seq_len;
let first = index % u.blocks * ${slots * each}u;
let stop = min(u.width, t + 1u);
${placeInTeam(team).join("\n")}
${keys.map((n) => tokenOf(n, slots)).join("\n")}
if (first < stop) {
${isShared ? loadKeys.join("\n") : ""}
for (var head = 0u; head < u.heads; head++) {
let number = ${at(number, "row", "head")};
${loadHead("q", { tensor: "q", row: "row", head: "head", columns }, team).join("\n")}
${isShared ? "" : loadKeys.join("\n")}
${keys.map((n) => `var s${n} = ${partialDot("q", `k${n}`, columns, team)};`).join("\n")}
${sumOverLanes(keys.map((n) => `s${n}`), team).join("\n")}
${keys.map((n) => `sum${n} += ${pairs.term(`s${n}`, "number")};`).join("\n")}
}
}
${byOneLane(team, keys.map(storeOf).join("\n"))}`,
    flops: 2 * listedPairs(result.rows, seqLen, result.cols) * dims.heads * queryWidth(dims),
  });
}

/** Key `n` of a slot: its place in the list, and the row that it is in. */
function tokenOf(n: number, slots: number): string {
  return `let at${n} = first + slot + ${n * slots}u;
var token${n} = -1;
if (at${n} < stop) { token${n} = ${at("indices", "row", `at${n}`)}; }
// Where the list is over, something is read and hidden.
let token_row${n} = row - t + u32(max(token${n}, 0));
var sum${n} = 0.0;`;
}

function storeOf(n: number): string {
  const value = `select(u.hidden, sum${n} * u.factor, token${n} >= 0)`;
  return `if (at${n} < u.width) { ${at("result", "row", `at${n}`)} = ${value}; }`;
}
