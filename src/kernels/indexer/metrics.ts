/**
 * Measurements of an indexer, row by row, and their means.
 *
 * @module
 */
import { type Kernel, makeKernel, workgroupReduce } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { rounds } from "../wgsl/loops.ts";
import { type Layout, layoutUniforms, read, write } from "../wgsl/operand.ts";
import { larger, plus, rowGroups } from "../wgsl/rows.ts";

/** What {@linkcode indexerRowMetrics} gives of each row, in this order. */
export const ROW_METRICS = [
  "kl",
  "captured_mass",
  "oracle_mass",
  "random_mass",
  "set_overlap",
  "score_recall",
  "target_entropy",
  "index_entropy",
  "dead_scores",
  "score_mean",
  "score_std",
  "sink_share",
  "local_share",
  "tied_rows",
] as const;

/**
 * Bins of distances t − s in sequences of `seqLen` tokens: bin 0 is the query itself, bin b > 0 the
 * distances 2^(b − 1) … 2^b − 1.
 */
export function distanceBins(seqLen: number): number {
  return 33 - Math.clz32(seqLen - 1);
}

/** What {@linkcode indexerRowMetrics} works on. R is the number of queries of a sequence. */
export interface RowMetricsSpec {
  /** [batch · R, keys]: index scores. */
  readonly scores: Layout;
  /** [batch · R, keys]: the teacher, not normalised. */
  readonly target: Layout;
  /** i32 [batch · R, words]: the selection, bit s % 32 of word s / 32 set where key s is in it. */
  readonly mask: Layout;
  /** i32 [batch · R, k]: the keys with the largest targets, −1 where there are fewer. */
  readonly oracle: Layout;
  /** i32 [batch · R, k]: the keys with the largest scores, −1 where there are fewer. */
  readonly highest: Layout;
  /** [batch · R, metrics + bins]: {@linkcode ROW_METRICS}, then the histogram of distances. */
  readonly out: Layout;
  /** Position of the first query in its sequence. */
  readonly firstRow: number;
  readonly batch: number;
  /** Rows of earlier positions are not computed, and not written. */
  readonly from: number;
  /** A selected key is local if t − s is less. */
  readonly localWindow: number;
  readonly software: boolean;
}

/** Measures each row; see `indexerMetrics`. */
export function indexerRowMetrics(spec: RowMetricsSpec): Kernel {
  const { scores, target, mask, oracle, highest, out, firstRow, batch, from, localWindow } = spec;
  const rows = rowGroups(scores.rows, scores.cols, spec.software, 4);
  const operands = {
    scores: read(scores),
    teacher: read(target),
    mask: read(mask, "i32"),
    oracle: read(oracle, "i32"),
    highest: read(highest, "i32"),
    out: write(out),
  };
  const bins = out.cols - ROW_METRICS.length;
  const perGroup = rows.workgroup / rows.lanes;
  const score = at("scores", "row", "col");
  const teacher = at("teacher", "row", "col");
  const selects = (key: string) =>
    `((u32(${at("mask", "row", `${key} / 32u`)}) >> (${key} % 32u)) & 1u) == 1u`;
  const visit = (body: string) =>
    `for (var col = sub; col < seen; col += ${rows.lanes}u) {\n${body}\n  }`;
  const values: Record<typeof ROW_METRICS[number], string> = {
    kl: "divergence",
    captured_mass: "captured.x",
    oracle_mass: "best.x",
    random_mass: "f32(min(u.k, seen)) / count",
    set_overlap: "best.y / f32(u.k)",
    score_recall: "captured.x / best.x",
    target_entropy: "entropies.x / most",
    index_entropy: "entropies.y / most",
    dead_scores: "moments.y / count",
    score_mean: "mean",
    score_std: "sqrt(spread.y / count)",
    sink_share: `select(0.0, 1.0, ${selects("0u")})`,
    local_share: "places.x / captured.y",
    // As many as reach the k-th largest score, or fewer, are all selected.
    tied_rows: "select(0.0, 1.0, places.y > f32(u.k))",
  };
  return makeKernel({
    name: "indexer_metrics",
    shape: `${scores.rows}x${scores.cols}`,
    operands,
    uniforms: {
      rows: scores.rows,
      cols: scores.cols,
      queries: scores.rows / batch,
      first_row: firstRow,
      begin: from,
      k: oracle.cols,
      local: localWindow,
      ...layoutUniforms(operands),
    },
    workgroup: rows.workgroup,
    grid: rows.grid,
    iterations: 3 * rows.rounds + rounds(oracle.cols, rows.lanes) + bins,
    declarations: `${rows.reduce("largest", "f32", larger)}
${rows.reduce("total", "f32", plus)}
${rows.reduce("totals", "vec2f", plus)}
var<workgroup> bins: array<atomic<u32>, ${perGroup * bins}>;`,
    body: `${rows.prelude}
  let t = u.first_row + row % u.queries;
  let counts = live && t >= u.begin;
  let seen = select(0u, min(n, t + 1u), counts);
  let count = f32(seen);
  var top = -3.0e38;
  var taught = 0.0;
  var pair = vec2f();
  ${
      visit(`    top = max(top, ${score});
    taught += ${teacher};
    pair += vec2f(${score}, select(0.0, 1.0, ${score} == 0.0));`)
    }
  top = largest(lane, top);
  let inverse = 1.0 / total(lane, taught);
  let moments = totals(lane, pair);
  let mean = moments.x / count;
  pair = vec2f();
  ${
      visit(`    let off = ${score} - mean;
    pair += vec2f(exp(${score} - top), off * off);`)
    }
  let spread = totals(lane, pair);
  let log_z = log(spread.x);
  var captures = vec2f();
  // The largest of the scores turned round: the least of the k largest.
  var turned = -3.0e38;
  for (var i = sub; i < select(0u, u.k, counts); i += ${rows.lanes}u) {
    let key = ${at("oracle", "row", "i")};
    if (key >= 0) {
      let s = u32(key);
      captures += vec2f(${at("teacher", "row", "s")} * inverse, select(0.0, 1.0, ${selects("s")}));
    }
    let high = ${at("highest", "row", "i")};
    if (high >= 0) { turned = max(turned, -${at("scores", "row", "u32(high)")}); }
  }
  let best = totals(lane, captures);
  let threshold = -largest(lane, turned);
  var kl = 0.0;
  var near = vec2f();
  var sums = vec2f();
  pair = vec2f();
  ${
      visit(`    let log_q = (${score} - top) - log_z;
    let q = exp(log_q);
    let p = ${teacher} * inverse;
    // The least normal number: GPUs may take a smaller one for 0, whose logarithm is infinite.
    let log_p = log(max(p, 1.2e-38));
    // The difference of the sums, 0 in exact numbers, takes the rounding of both logarithms out.
    kl += (q - p) + select(0.0, p * (log_p - log_q), p > 0.0);
    pair -= vec2f(p * log_p, q * log_q);
    near.y += select(0.0, 1.0, ${score} >= threshold);
    if (${selects("col")}) {
      let distance = t - col;
      sums += vec2f(p, 1.0);
      near.x += select(0.0, 1.0, distance < u.local);
      atomicAdd(&bins[lane / ${rows.lanes}u * ${bins}u + 32u - countLeadingZeros(distance)], 1u);
    }`)
    }
  let divergence = total(lane, kl);
  let entropies = totals(lane, pair);
  let captured = totals(lane, sums);
  let places = totals(lane, near);
  if (counts && sub == 0u) {
    // A row with one key has no entropy to speak of: any factor will do.
    let most = max(log(count), 1e-6);
    ${
      ROW_METRICS.map((name, i) => `${at("out", "row", `${i}u`)} = ${values[name]};`).join("\n    ")
    }
    for (var b = 0u; b < ${bins}u; b++) {
      let found = f32(atomicLoad(&bins[lane / ${rows.lanes}u * ${bins}u + b]));
      ${at("out", "row", `${ROW_METRICS.length}u + b`)} = found / captured.y;
    }
  }`,
    flops: 20 * scores.rows * scores.cols,
  });
}

/**
 * out[c] = mean of x[row, c] over the rows at positions `from` … of every sequence, in a fixed
 * order. x [rows, cols], out [1, cols].
 */
export function meanOfRows(
  { x, out, seqLen, from }: { x: Layout; out: Layout; seqLen: number; from: number },
): Kernel {
  const lanes = 64;
  const sequences = x.rows / seqLen;
  const operands = { x: read(x), out: write(out) };
  return makeKernel({
    name: "mean_of_rows",
    shape: `${x.rows}x${x.cols}`,
    operands,
    uniforms: {
      count: sequences * (seqLen - from),
      counted: seqLen - from,
      seq_len: seqLen,
      begin: from,
      ...layoutUniforms(operands),
    },
    workgroup: lanes,
    grid: [x.cols, 1, 1],
    iterations: rounds(sequences * (seqLen - from), lanes),
    declarations: workgroupReduce("sums", lanes),
    body: `
  var sum = 0.0;
  for (var i = lane; i < u.count; i += ${lanes}u) {
    let row = i / u.counted * u.seq_len + u.begin + i % u.counted;
    sum += ${at("x", "row", "wid.x")};
  }
  sum = sums_reduce(lane, sum);
  if (lane == 0u) { ${at("out", "0u", "wid.x")} = sum / f32(u.count); }`,
    flops: x.rows * x.cols,
  });
}

/**
 * shares[row] = bits set in both masks, divided by k. a, b i32 [rows, words], shares [rows, 1].
 */
export function maskOverlapRows(
  { a, b, shares, k }: { a: Layout; b: Layout; shares: Layout; k: number },
): Kernel {
  const rows = rowGroups(a.rows, 1, true, 1);
  const operands = { a: read(a, "i32"), b: read(b, "i32"), shares: write(shares) };
  return makeKernel({
    name: "mask_overlap",
    shape: `${a.rows}x${a.cols}`,
    operands,
    uniforms: { rows: a.rows, cols: a.cols, k, ...layoutUniforms(operands) },
    workgroup: rows.workgroup,
    grid: rows.grid,
    iterations: a.cols,
    body: `${rows.prelude}
  var both = 0u;
  for (var word = 0u; word < n; word++) {
    both += countOneBits(u32(${at("a", "row", "word")} & ${at("b", "row", "word")}));
  }
  if (live) { ${at("shares", "row", "0u")} = f32(both) / f32(u.k); }`,
  });
}
