/**
 * Other views of a selection of keys, made on the device: blocks, which tell the masked attention
 * kernels what to skip, and for each key the queries that selected it, which the gathered kernels
 * need for the gradients of keys and values. Such lists are counted, their starts added up, and
 * then filled. There are no atomics: the invocations that fill a list know their places in it, so
 * its order is the same every time.
 *
 * Lists are made by walking down the columns of the mask, which is work for many invocations;
 * `lists_by_rows.ts` has another way for software adapters.
 *
 * @module
 */
import { foldGrid, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { rounds } from "../wgsl/loops.ts";
import { type Layout, layoutUniforms, type Operand, read, update, write } from "../wgsl/operand.ts";

/** Parts of the queries that are counted and listed side by side. */
export const SEGMENTS = 8;

/** Invocations that scan the counts of a sequence, and counts that each reads at a time. */
const SCANNERS = 256;
const SCANNED = 8;

/** Words of a row of a mask. */
export function maskWords(seqLen: number): number {
  return Math.ceil(seqLen / 32);
}

/** Columns of `starts`: a start per key and segment, and the end of the last list. */
export function startsCols(seqLen: number): number {
  return seqLen * SEGMENTS + 1;
}

/**
 * `blocks [batch * ceil(seqLen / 32), ceil(seqLen / 32)]`: the bitwise or of the rows of `mask` for
 * 32 queries each.
 */
export function selectionBlocks(mask: Layout, blocks: Layout, seqLen: number): Kernel {
  const words = maskWords(seqLen);
  const count = blocks.rows * words;
  const operands = { mask: read(mask, "u32"), blocks: write(blocks, "u32") };
  return makeKernel({
    name: "selection_blocks",
    shape: `${mask.rows}x${seqLen}`,
    operands,
    uniforms: { count, words, seq_len: seqLen, ...layoutUniforms(operands) },
    workgroup: 64,
    grid: foldGrid(Math.ceil(count / 64)),
    iterations: 32,
    body: `
let i = (wid.x + wid.y * groups.x) * 64u + lane;
if (i >= u.count) { return; }
let word = i % u.words;
let block = i / u.words;
let first = block % u.words * 32u;
let row = block / u.words * u.seq_len;
var some = 0u;
for (var t = first; t < min(first + 32u, u.seq_len); t++) {
  some |= mask[u.mask_offset + (row + t) * u.mask_stride + word];
}
blocks[u.blocks_offset + block * u.blocks_stride + word] = some;`,
    flops: count * 32,
  });
}

/**
 * Counts per key and segment of the queries that selected it, in `starts [batch, startsCols]`.
 */
export function countQueries(mask: Layout, starts: Layout, seqLen: number): Kernel {
  return overColumns("count_queries", mask, { starts: write(starts, "u32") }, seqLen, {
    before: "var n = 0u;",
    found: "n += 1u;",
    after: "starts[at] = n;",
  });
}

/**
 * Turns the counts in `starts` into starts, and puts the total at the end.
 */
export function scanStarts(starts: Layout): Kernel {
  const steps: string[] = [];
  for (let by = 1; by < SCANNERS; by *= 2) {
    steps.push(`
workgroupBarrier();
var before${by} = 0u;
if (lane >= ${by}u) { before${by} = sums[lane - ${by}u]; }
workgroupBarrier();
sums[lane] += before${by};`);
  }
  const operands = { starts: update(starts, "u32") };
  const count = starts.cols - 1;
  const some = Array.from({ length: SCANNED }, (_, n) => n);
  const place = (n: number) => `starts[row + i + ${n}u]`;
  return makeKernel({
    name: "scan_starts",
    shape: `${starts.rows}x${count}`,
    operands,
    uniforms: { count, rows: starts.rows, ...layoutUniforms(operands) },
    workgroup: SCANNERS,
    grid: foldGrid(starts.rows),
    iterations: rounds(count, SCANNERS * SCANNED),
    declarations: `var<workgroup> sums: array<u32, ${SCANNERS}>;`,
    body: `
let index = wid.x + wid.y * groups.x;
if (index >= u.rows) { return; }
let row = u.starts_offset + index * u.starts_stride;
var passed = 0u;
for (var first = 0u; first < u.count; first += ${SCANNERS * SCANNED}u) {
let i = first + lane * ${SCANNED}u;
${
      some.map((n) => `var n${n} = 0u;\nif (i + ${n}u < u.count) { n${n} = ${place(n)}; }`)
        .join("\n")
    }
let total = ${some.map((n) => `n${n}`).join(" + ")};
sums[lane] = total;
${steps.join("")}
workgroupBarrier();
var next = passed + sums[lane] - total;
${
      some.map((n) =>
        `if (i + ${n}u < u.count) { ${place(n)} = next; }
next += n${n};`
      ).join("\n")
    }
passed += sums[${SCANNERS - 1}];
workgroupBarrier();
}
if (lane == 0u) { starts[row + u.count] = passed; }`,
    flops: 2 * starts.rows * count,
  });
}

/**
 * Lists of the queries that selected each key, ascending: those of key s of sequence b are
 * `queries[b * seqLen * topk + i]` for i from `starts[b][s * SEGMENTS]` up to
 * `starts[b][(s + 1) * SEGMENTS]`. `queries` is packed, `[batch * seqLen, topk]`.
 */
export function listQueries(
  mask: Layout,
  starts: Layout,
  queries: Layout,
  seqLen: number,
): Kernel {
  const others = { starts: read(starts, "u32"), queries: write(queries, "i32") };
  return overColumns("list_queries", mask, others, seqLen, {
    before: `var next = starts[at];
let list = u.queries_offset + row * u.queries_stride;`,
    found: "queries[list + next] = i32(t); next += 1u;",
    after: "",
  });
}

/**
 * Walks down the columns of `mask`: a workgroup has 32 keys, one word, and an invocation the bit of
 * one of them for a segment of the queries. `at` is the place of its count in `starts`, and `row`
 * the first row of the sequence.
 */
function overColumns(
  name: string,
  mask: Layout,
  others: Record<string, Operand>,
  seqLen: number,
  { before, found, after }: { before: string; found: string; after: string },
): Kernel {
  const words = maskWords(seqLen);
  const count = mask.rows / seqLen * words;
  const operands = { mask: read(mask, "u32"), ...others };
  // Four words are read before the first is needed.
  const steps = [0, 1, 2, 3];
  const load = (n: number) =>
    `let bits${n} = mask[first_word + min(four + ${n}u, end - 1u) * u.mask_stride];`;
  const test = (n: number) =>
    `{
  let t = four + ${n}u;
  if (((bits${n} >> (lane % 32u)) & 1u) != 0u && t < end) { ${found} }
}`;
  return makeKernel({
    name,
    shape: `${mask.rows}x${seqLen}`,
    operands,
    uniforms: { count, words, seq_len: seqLen, ...layoutUniforms(operands) },
    workgroup: 32 * SEGMENTS,
    grid: foldGrid(count),
    iterations: rounds(Math.ceil(seqLen / SEGMENTS), steps.length),
    body: `
let index = wid.x + wid.y * groups.x;
let word = index % u.words;
let key = word * 32u + lane % 32u;
if (index >= u.count || key >= u.seq_len) { return; }
let sequence = index / u.words;
let row = sequence * u.seq_len;
let segment = lane / 32u;
let own = (u.seq_len + ${SEGMENTS - 1}u) / ${SEGMENTS}u;
let at = u.starts_offset + sequence * u.starts_stride + key * ${SEGMENTS}u + segment;
${before}
// No query before the word's first key can have selected one of its keys.
let begin = max(segment * own, word * 32u);
let end = min((segment + 1u) * own, u.seq_len);
let first_word = u.mask_offset + row * u.mask_stride + word;
for (var four = begin; four < end; four += 4u) {
${steps.map(load).join("\n")}
${steps.map(test).join("\n")}
}
${after}`,
    flops: mask.rows * seqLen / 2,
  });
}
