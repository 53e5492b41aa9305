/**
 * AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101) with clipping by the global norm.
 *
 * @module
 */
import { walk } from "../wgsl/elementwise.ts";
import { type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, read, update } from "../wgsl/operand.ts";

/** Columns of the `hyper` matrix, in order: what changes from step to step or group to group. */
export const ADAMW_HYPER = [
  "lr",
  "weightDecay",
  /** Largest global norm of the gradient; 0 turns clipping off. */
  "clip",
  "beta1",
  "beta2",
  "eps",
  /** 1 / (1 − beta1^t), t = 1 at the first step. */
  "correction1",
  /** 1 / (1 − beta2^t). */
  "correction2",
] as const;

/**
 * One step on a flat range:
 *
 *     g ← g · min(1, clip / (norm + 1e-6))
 *     m ← β1 m + (1 − β1) g,  v ← β2 v + (1 − β2) g²
 *     p ← p − lr (m̂ / (√v̂ + eps) + weightDecay · p)
 *
 * p, g, m, v [1, n], n up to 2^30; norm [1, 1]; hyper [1, 8] as in {@linkcode ADAMW_HYPER}. The
 * gradient itself is left as it is.
 */
export function adamwKernel(
  { p, g, m, v, norm, hyper }: {
    p: Layout;
    g: Layout;
    m: Layout;
    v: Layout;
    norm: Layout;
    hyper: Layout;
  },
): Kernel {
  const { width, spread, view } = walk(p, g, m, v);
  const operands = {
    p: update(p, width, view(p)),
    g: read(g, width, view(g)),
    m: update(m, width, view(m)),
    v: update(v, width, view(v)),
    norm: read(norm),
    hyper: read(hyper),
  };
  return makeKernel({
    name: "adamw",
    shape: `${p.cols}`,
    operands,
    uniforms: { ...spread.uniforms, ...layoutUniforms(operands) },
    workgroup: spread.workgroup,
    grid: spread.grid,
    declarations: `fn setting(i: u32) -> f32 { return hyper[u.hyper_offset + i]; }`,
    body: `${spread.prelude}
  let clip = setting(2u);
  let scale = select(1.0, min(1.0, clip / (norm[u.norm_offset] + 1e-6)), clip > 0.0);
  let gradient = ${at("g", "row", "col")} * scale;
  let old = ${at("p", "row", "col")};
  let mean = setting(3u) * ${at("m", "row", "col")} + (1.0 - setting(3u)) * gradient;
  let square = setting(4u) * ${at("v", "row", "col")} + (1.0 - setting(4u)) * gradient * gradient;
  ${at("m", "row", "col")} = mean;
  ${at("v", "row", "col")} = square;
  let step = mean * setting(6u) / (sqrt(square * setting(7u)) + setting(5u));
  ${at("p", "row", "col")} = old - setting(0u) * (step + setting(1u) * old);`,
    flops: 14 * p.rows * p.cols,
  });
}
