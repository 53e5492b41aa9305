/**
 * The lists of `lists.ts` made by walking along the rows of the indices: far less work
 * than walking down the columns of the mask, but for few invocations, which suits software adapters.
 *
 * @module
 */
import { foldGrid, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { MOST_ITERATIONS, rounds } from "../wgsl/loops.ts";
import { type Layout, layoutUniforms, type Operand, read, update, write } from "../wgsl/operand.ts";
import { SEGMENTS } from "./lists.ts";

/** Indices that are visited in one round of a loop. */
const UNROLLED = 8;

/** Iterations of an invocation. */
function walkIterations(seqLen: number, topk: number): number {
  return seqLen + rounds(seqLen, SEGMENTS) * (1 + rounds(topk, UNROLLED));
}

/** Whether lists can be made by rows. */
export function canListByRows(seqLen: number, topk: number): boolean {
  return walkIterations(seqLen, topk) <= MOST_ITERATIONS;
}

/** {@linkcode countQueries} from the lists of keys. */
export function countQueriesByRows(indices: Layout, starts: Layout, seqLen: number): Kernel {
  return overRows("count_queries_by_rows", indices, { starts: update(starts, "u32") }, seqLen, {
    before: (at) => `starts[starts_at + ${at}] = 0u;`,
    found: (at) => `starts[starts_at + ${at}] += 1u;`,
  });
}

/**
 * {@linkcode listQueries} from the lists of keys. `next` is scratch memory,
 * `[batch, startsCols]`.
 */
export function listQueriesByRows(
  indices: Layout,
  starts: Layout,
  next: Layout,
  queries: Layout,
  seqLen: number,
): Kernel {
  const others = {
    starts: read(starts, "u32"),
    next: update(next, "u32"),
    queries: write(queries, "i32"),
  };
  return overRows("list_queries_by_rows", indices, others, seqLen, {
    before: (at) => `next[next_at + ${at}] = starts[starts_at + ${at}];`,
    found: (at) => `
let place = next[next_at + ${at}];
queries[u.queries_offset + row * u.queries_stride + place] = i32(t);
next[next_at + ${at}] = place + 1u;`,
  });
}

/**
 * Walks along the rows of `indices`: an invocation has a segment of the queries of a sequence, and
 * a counter of its own for every key. `before` is for a counter, `found` for a selected key's.
 */
function overRows(
  name: string,
  indices: Layout,
  others: Record<string, Operand>,
  seqLen: number,
  { before, found }: {
    before: (at: string) => string;
    found: (at: string) => string;
  },
): Kernel {
  const batch = indices.rows / seqLen;
  const operands = { indices: read(indices, "i32"), ...others };
  const places = Object.keys(others).filter((name) => name !== "queries");
  const step = (n: number) =>
    `if (i + ${n}u < u.topk) {
  let key = indices[list + i + ${n}u];
  if (key >= 0) { ${found(`u32(key) * ${SEGMENTS}u + lane`)} }
}`;
  return makeKernel({
    name,
    shape: `${indices.rows}x${indices.cols}`,
    operands,
    uniforms: {
      batch,
      topk: indices.cols,
      seq_len: seqLen,
      ...layoutUniforms(operands),
    },
    workgroup: SEGMENTS,
    grid: foldGrid(batch),
    iterations: walkIterations(seqLen, indices.cols),
    body: `
let sequence = wid.x + wid.y * groups.x;
if (sequence >= u.batch) { return; }
let row = sequence * u.seq_len;
${places.map((n) => `let ${n}_at = u.${n}_offset + sequence * u.${n}_stride;`).join("\n")}
for (var key = 0u; key < u.seq_len; key++) { ${before(`key * ${SEGMENTS}u + lane`)} }
let own = (u.seq_len + ${SEGMENTS - 1}u) / ${SEGMENTS}u;
for (var t = lane * own; t < min((lane + 1u) * own, u.seq_len); t++) {
  let list = u.indices_offset + (row + t) * u.indices_stride;
  for (var i = 0u; i < u.topk; i += ${UNROLLED}u) {
${Array.from({ length: UNROLLED }, (_, n) => step(n)).join("\n")}
    if (indices[list + i] < 0) { break; }
  }
}`,
  });
}
