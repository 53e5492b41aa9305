/**
 * Columns beside the columns of each head.
 *
 * @module
 */
import { spread } from "../wgsl/elementwise.ts";
import { type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, read, write } from "../wgsl/operand.ts";
import { type Sink, sinkParts } from "../wgsl/sink.ts";

/** y[t, h] = [a[t, h] | b[t]]. */
export function besideKernel(
  { a, b, y, heads }: { a: Layout; b: Layout; y: Layout; heads: number },
): Kernel {
  const over = spread(y.rows, y.cols);
  const operands = { a: read(a), b: read(b), y: write(y) };
  return makeKernel({
    name: "beside",
    shape: `${y.rows}x${heads}x(${a.cols / heads}+${b.cols})`,
    operands,
    uniforms: {
      ...over.uniforms,
      own: a.cols / heads,
      of_head: y.cols / heads,
      ...layoutUniforms(operands),
    },
    workgroup: over.workgroup,
    grid: over.grid,
    body: `${over.prelude}
  let head = col / u.of_head;
  let i = col % u.of_head;
  if (i < u.own) {
    ${at("y", "row", "col")} = ${at("a", "row", "head * u.own + i")};
  } else {
    ${at("y", "row", "col")} = ${at("b", "row", "i - u.own")};
  }`,
  });
}

/** da[t, h] is the part of dy[t, h] that a is in. */
export function besideOwnGradient(
  { dy, da, heads }: { dy: Layout; da: Sink; heads: number },
): Kernel {
  const { rows, cols } = da.into;
  const over = spread(rows, cols);
  const sink = sinkParts("da", da, 1);
  const operands = { dy: read(dy), ...sink.operands };
  return makeKernel({
    name: "beside_own_gradient",
    shape: `${rows}x${heads}x${cols / heads}`,
    operands,
    uniforms: {
      ...over.uniforms,
      own: cols / heads,
      of_head: dy.cols / heads,
      ...layoutUniforms(operands),
    },
    workgroup: over.workgroup,
    grid: over.grid,
    body: `${over.prelude}
  ${sink.store("row", "col", at("dy", "row", "(col / u.own) * u.of_head + col % u.own"))}`,
  });
}

/** db[t] is the sum over the heads of the parts of dy[t, h] that b is in. */
export function besideSharedGradient(
  { dy, db, heads }: { dy: Layout; db: Sink; heads: number },
): Kernel {
  const { rows, cols } = db.into;
  const over = spread(rows, cols);
  const sink = sinkParts("db", db, 1);
  const operands = { dy: read(dy), ...sink.operands };
  return makeKernel({
    name: "beside_shared_gradient",
    shape: `${rows}x${heads}x${cols}`,
    operands,
    uniforms: {
      ...over.uniforms,
      heads,
      of_head: dy.cols / heads,
      ...layoutUniforms(operands),
    },
    workgroup: over.workgroup,
    grid: over.grid,
    iterations: heads,
    body: `${over.prelude}
  var sum = 0.0;
  for (var head = 0u; head < u.heads; head++) {
    sum += ${at("dy", "row", "(head + 1u) * u.of_head - u.cols + col")};
  }
  ${sink.store("row", "col", "sum")}`,
    flops: rows * cols * heads,
  });
}
