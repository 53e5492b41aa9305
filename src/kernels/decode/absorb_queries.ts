/**
 * Queries of MLA's absorbed mode: those of each head taken through its key weights, so that they
 * can be compared with latents.
 *
 * @module
 */
import { spread } from "../wgsl/elementwise.ts";
import { bytesOf, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at, widthOf } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, read, unitType, write } from "../wgsl/operand.ts";

/** What {@linkcode absorbQueriesKernel} multiplies. */
export interface AbsorbQueriesSpec {
  /** [rows, heads · (nope + rope)]. */
  readonly q: Layout;
  /** [heads · (nope + value), latent]: rows of keys, then of values, head by head. */
  readonly w: Layout;
  /** [rows, heads · latent]. */
  readonly y: Layout;
  readonly heads: number;
  /** Columns of a query head without position. */
  readonly nope: number;
}

/** y[t, h, j] = Σ_i w[h, i, j] · q[t, h, i], i < nope. */
export function absorbQueriesKernel({ q, w, y, heads, nope }: AbsorbQueriesSpec): Kernel {
  const width = widthOf(w, y);
  const over = spread(y.rows, y.cols / width);
  const operands = { q: read(q), w: read(w, width), y: write(y, width) };
  return makeKernel({
    name: "absorb_queries",
    shape: `${y.rows}x${heads}x${nope}x${w.cols}`,
    operands,
    uniforms: {
      ...over.uniforms,
      nope,
      q_of_head: q.cols / heads,
      w_of_head: w.rows / heads,
      latent: w.cols / width,
      ...layoutUniforms(operands),
    },
    workgroup: over.workgroup,
    grid: over.grid,
    iterations: nope,
    body: `${over.prelude}
  let head = col / u.latent;
  let j = col % u.latent;
  var sum = ${unitType(width)}(0.0);
  for (var i = 0u; i < u.nope; i++) {
    sum += ${at("w", "(head * u.w_of_head + i)", "j")} * ${
      at("q", "row", "head * u.q_of_head + i")
    };
  }
  ${at("y", "row", "col")} = sum;`,
    flops: 2 * y.rows * heads * nope * w.cols,
    bytes: bytesOf(y) + 4 * heads * nope * (y.rows + w.cols),
  });
}
