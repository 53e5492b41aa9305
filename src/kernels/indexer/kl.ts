/**
 * Divergence of the index softmax from the attention target, row by row, and its gradient.
 *
 * @module
 */
import { Float, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, read, update, write } from "../wgsl/operand.ts";
import { larger, plus, rowGroups } from "../wgsl/rows.ts";

/**
 * Least target probability of the reverse direction, which is infinite at 0: a key that attention
 * ignores costs ln(1 / floor) = 13.8 nats times its index probability, no more.
 */
export const TARGET_FLOOR = 1e-6;

/** What {@linkcode indexerKl} works on. R is the number of queries of a sequence. */
export interface IndexerKlSpec {
  /** [batch · R, keys]: index scores. */
  readonly scores: Layout;
  /** [batch · R, keys]: the teacher, not normalised. With `gradient` that of the scores replaces it. */
  readonly target: Layout;
  /** i32 [batch · R, words]: bit s % 32 of word s / 32 is set where key s is in the support. */
  readonly mask: Layout | null;
  /** [batch · R, 1]: the divergence of each row, in nats. */
  readonly kl: Layout;
  /** Position of the first query in its sequence. */
  readonly firstRow: number;
  /** Sequences side by side: R queries of each. Default 1. */
  readonly batch?: number;
  readonly direction: "forward" | "reverse";
  /** Factor of the gradient, or null where none is wanted. */
  readonly gradient: number | null;
  readonly software: boolean;
}

/**
 * kl[t] = KL(p‖q) forward, KL(q‖p) reverse, over the visible keys s ≤ t of the support; p is
 * `target` divided by its sum, q the softmax of `scores`. The gradient is q − p forward,
 * q (ln q − ln p − KL) reverse, 0 outside the support; what lies above the diagonal is not touched.
 * A row whose teacher is 0 everywhere counts nothing.
 */
export function indexerKl(spec: IndexerKlSpec): Kernel {
  const { scores, target, mask, kl, firstRow, batch = 1, direction, gradient } = spec;
  const operands = {
    scores: read(scores),
    teacher: (gradient === null ? read : update)(target),
    ...mask ? { mask: read(mask, "i32") } : {},
    kl: write(kl),
  };
  const rows = rowGroups(scores.rows, scores.cols, spec.software, 4);
  const score = at("scores", "row", "col");
  const teacher = at("teacher", "row", "col");
  const forward = direction === "forward";
  /** A loop over the support; elsewhere `outside` runs. */
  const visit = (inside: string, outside = "") => {
    const loop = `for (var col = sub; col < seen; col += ${rows.lanes}u)`;
    if (!mask) return `${loop} {\n${inside}\n}`;
    const bit = `(u32(${at("mask", "row", "col / 32u")}) >> (col % 32u)) & 1u`;
    return `${loop} {
    if ((${bit}) == 0u) { ${outside} continue; }
${inside}
  }`;
  };
  const logs = `
    let log_q = (${score} - top) - log_z;
    let q = exp(log_q);
    let p = ${teacher} * inverse;`;
  // The difference of the sums, 0 in exact numbers, takes the rounding of both logarithms out.
  const term = forward
    ? `
    sum += (q - p) + select(0.0, p * (log(max(p, 1.2e-38)) - log_q), p > 0.0);`
    : `
    let gap = log_q - log(max(p, u.floor));
    sum += q * gap;`;
  const store = (value: string) => `
    ${teacher} = u.weight * ${value};`;
  const zero = `${teacher} = 0.0;`;
  const oneLoop = gradient === null || forward;
  return makeKernel({
    name: "indexer_kl",
    shape: `${scores.rows}x${scores.cols}`,
    operands,
    uniforms: {
      rows: scores.rows,
      cols: scores.cols,
      queries: scores.rows / batch,
      first_row: firstRow,
      weight: new Float(gradient ?? 0),
      floor: new Float(TARGET_FLOOR),
      ...layoutUniforms(operands),
    },
    workgroup: rows.workgroup,
    grid: rows.grid,
    iterations: (oneLoop ? 3 : 4) * rows.rounds,
    declarations: rows.reduce("largest", "f32", larger) + "\n" + rows.reduce("total", "f32", plus),
    body: `${rows.prelude}
  let seen = min(n, u.first_row + row % u.queries + 1u);
  // Not -inf: the difference of two of these must be a number.
  var top = -3.0e38;
  var sum = 0.0;
  ${
      visit(`
    top = max(top, ${score});
    sum += ${teacher};`)
    }
  top = largest(lane, top);
  let taught = total(lane, sum);
  let inverse = select(0.0, 1.0 / taught, taught > 0.0);
  sum = 0.0;
  ${visit(`    sum += exp(${score} - top);`)}
  let log_z = log(total(lane, sum));
  sum = 0.0;
  ${
      visit(
        logs + term +
          (gradient !== null && forward ? store("select(0.0, q - p, taught > 0.0)") : ""),
        gradient !== null && forward ? zero : "",
      )
    }
  let divergence = total(lane, sum);
  if (live && sub == 0u) { ${at("kl", "row", "0u")} = select(0.0, divergence, taught > 0.0); }
  ${
      oneLoop ? "" : visit(
        `${logs}
    let gap = log_q - log(max(p, u.floor));` +
          store("select(0.0, q * (gap - divergence), taught > 0.0)"),
        zero,
      )
    }`,
    flops: 12 * scores.rows * scores.cols,
  });
}
