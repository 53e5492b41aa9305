/**
 * Softmax cross-entropy, fused: neither the softmax nor the log-softmax is stored.
 *
 * @module
 */
import { spread } from "../wgsl/elementwise.ts";
import { Float, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at, sumOfUnit, widthOf } from "../wgsl/layout_units.ts";
import { rounds } from "../wgsl/loops.ts";
import { type Layout, layoutUniforms, read, unitType, write } from "../wgsl/operand.ts";
import { larger, plus, rowGroups } from "../wgsl/rows.ts";
import { type Sink, sinkMatrices, sinkParts } from "../wgsl/sink.ts";

/**
 * lse = log Σ exp(logits), nll = lse − logits[target], or 0 where the target is −1. logits
 * [rows, vocabulary], targets [rows, 1] i32, nll and lse [rows, 1].
 */
export function crossEntropyKernel(
  { logits, targets, nll, lse, software }: {
    logits: Layout;
    targets: Layout;
    nll: Layout;
    lse: Layout;
    software: boolean;
  },
): Kernel {
  const width = widthOf(logits);
  const rows = rowGroups(logits.rows, logits.cols / width, software, 1);
  const largest = width === 4 ? "max(max(v.x, v.y), max(v.z, v.w))" : "v";
  const operands = {
    x: read(logits, width),
    targets: read(targets, "i32"),
    nll: write(nll),
    lse: write(lse),
  };
  const atTarget = width === 4 ? `${at("x", "row", "t / 4u")}[t % 4u]` : at("x", "row", "t");
  return makeKernel({
    name: "cross_entropy",
    shape: `${logits.rows}x${logits.cols}`,
    operands,
    uniforms: { rows: logits.rows, cols: logits.cols / width, ...layoutUniforms(operands) },
    workgroup: rows.workgroup,
    grid: rows.grid,
    iterations: rows.rounds,
    declarations: rows.reduce("largest", "f32", larger) + "\n" + rows.reduce("total", "f32", plus),
    body: `${rows.prelude}
  // Not -inf: the difference of two of these must be a number.
  var top = -3.0e38;
  var sum = 0.0;
  for (var col = sub; col < n; col += ${rows.lanes}u) {
    let v = ${at("x", "row", "col")};
    let higher = max(top, ${largest});
    sum = sum * exp(top - higher) + ${sumOfUnit(width, "exp(v - higher)")};
    top = higher;
  }
  let highest = largest(lane, top);
  sum = total(lane, sum * exp(top - highest));
  if (live && sub == 0u) {
    let rest = log(sum);
    ${at("lse", "row", "0u")} = highest + rest;
    let target_id = ${at("targets", "row", "0u")};
    var loss = 0.0;
    if (target_id >= 0) {
      let t = u32(target_id);
      // In this order the loss of a sure, right guess is not lost in the rounding of the lse.
      loss = (highest - ${atTarget}) + rest;
    }
    ${at("nll", "row", "0u")} = loss;
  }`,
    flops: 5 * logits.rows * logits.cols,
  });
}

/**
 * out = scale · Σ x, by one workgroup in a fixed order. x [rows, 1]; scale, out [1, 1].
 */
export function scaledSum(
  { x, scale, out }: { x: Layout; scale: Layout; out: Layout },
): Kernel {
  const rows = rowGroups(1, 1024, false, 1);
  const operands = { x: read(x), scale: read(scale), out: write(out) };
  return makeKernel({
    name: "scaled_sum",
    shape: `${x.rows}`,
    operands,
    uniforms: { rows: 1, cols: x.rows, ...layoutUniforms(operands) },
    workgroup: rows.workgroup,
    grid: rows.grid,
    iterations: rounds(x.rows, rows.lanes),
    declarations: rows.reduce("total", "f32", plus),
    body: `${rows.prelude}
  var sum = 0.0;
  for (var i = sub; i < n; i += ${rows.lanes}u) { sum += ${at("x", "i", "0u")}; }
  sum = total(lane, sum);
  if (lane == 0u) { out[u.out_offset] = sum * scale[u.scale_offset]; }`,
    flops: x.rows,
  });
}

/**
 * dLogits = (exp(logits − lse) − onehot(target)) · scale · weight; 0 in rows whose target is −1.
 */
export function crossEntropyGradient(
  { logits, targets, lse, scale, dLogits, weight }: {
    logits: Layout;
    targets: Layout;
    lse: Layout;
    scale: Layout;
    dLogits: Sink;
    weight: number;
  },
): Kernel {
  const width = widthOf(logits, ...sinkMatrices(dLogits));
  const type = unitType(width);
  const over = spread(logits.rows, logits.cols / width);
  const dx = sinkParts("dx", dLogits, width);
  const operands = {
    x: read(logits, width),
    targets: read(targets, "i32"),
    lse: read(lse),
    scale: read(scale),
    ...dx.operands,
  };
  const ids = width === 4 ? "vec4i(4 * i32(col)) + vec4i(0, 1, 2, 3)" : "i32(col)";
  const target = width === 4 ? "vec4i(t)" : "t";
  return makeKernel({
    name: "cross_entropy_gradient",
    shape: `${logits.rows}x${logits.cols}`,
    operands,
    uniforms: { ...over.uniforms, ...layoutUniforms(operands), weight: new Float(weight) },
    workgroup: over.workgroup,
    grid: over.grid,
    body: `${over.prelude}
  let t = ${at("targets", "row", "0u")};
  var g = ${type}(0.0);
  if (t >= 0) {
    let p = exp(${at("x", "row", "col")} - ${at("lse", "row", "0u")});
    let one = select(${type}(0.0), ${type}(1.0), ${ids} == ${target});
    g = (p - one) * (scale[u.scale_offset] * u.weight);
  }
  ${dx.store("row", "col", "g")}`,
    flops: 4 * logits.rows * logits.cols,
  });
}
