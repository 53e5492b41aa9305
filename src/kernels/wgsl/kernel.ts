/**
 * What a WGSL kernel is in this project: plain data made by a pure function of shapes. No device,
 * no buffer: a kernel can be printed, compared, cached by its code and tested.
 *
 * @module
 */

import { requireShortLoops } from "./loops.ts";
import type { Access, Layout, Operand } from "./operand.ts";

/** A compiled-to-be kernel: WGSL plus all that a dispatch needs besides the buffers. */
export interface Kernel {
  /** Name, then shape: shown in errors and profiles, e.g. `rms_norm 64x128`. */
  readonly label: string;
  /** Complete WGSL; the entry point is `main`. Shapes live in `uniforms`, so layers share code. */
  readonly code: string;
  /** The matrices that it works on, in the order of `@binding(0…)`. */
  readonly operands: readonly Layout[];
  /** Access of each of them. */
  readonly access: readonly Access[];
  /** The packed uniform struct, bound after the last buffer. */
  readonly uniforms: Uint32Array<ArrayBuffer>;
  /** Workgroups. */
  readonly grid: readonly [number, number, number];
  /** Floating-point operations of one dispatch. */
  readonly flops: number;
  /** Least bytes one dispatch must move. */
  readonly bytes: number;
  /** Most rounds that all loops of an invocation make together. */
  readonly iterations: number;
  /** Other ways to compute the same, of which only a trial can tell the fastest. */
  readonly variants?: KernelVariants;
}

/**
 * Kernels that put the same bits into one buffer of f32, from the same others, at different speeds.
 */
export interface KernelVariants {
  /** What they compute: where the key is the same, so is the fastest variant. */
  readonly key: string;
  /** Names of those that may be the fastest; the first is the kernel that this belongs to. */
  readonly names: readonly string[];
  /** The kernel of a name. */
  readonly make: (name: string) => Kernel;
}

/** A number for the uniform struct that WGSL sees as f32 instead of u32. */
export class Float {
  constructor(readonly value: number) {}
}

/** What {@linkcode makeKernel} assembles. */
export interface KernelSpec {
  /** Name without shape, snake_case. */
  name: string;
  /** Shape for the label, e.g. `64x128`. */
  shape: string;
  /** By WGSL name, in the order of their bindings. */
  operands: Record<string, Operand>;
  /** Members of the uniform struct `u`; a plain number is a u32. */
  uniforms: Record<string, number | Float>;
  /** Invocations per workgroup. */
  workgroup: number | readonly [number, number];
  /** Workgroups; each dimension at most 65 535 (see {@linkcode foldGrid}). */
  grid: readonly [number, number, number];
  /** Declarations before `main`: constants, workgroup variables, functions. */
  declarations?: string;
  /**
   * Body of `main`. In scope: `u` (uniforms), the buffers by name, and the built-ins `wid`
   * (workgroup id), `lid` (local id, a vec3u), `lane` (local index) and `groups` (num_workgroups).
   */
  body: string;
  /** Most rounds of all loops of an invocation together: no kernel with a loop goes without. */
  iterations?: number;
  flops?: number;
  /** Least bytes that are moved, if not all of every operand. */
  bytes?: number;
}

/** The largest grid dimension that WebGPU allows. */
const MAX_GRID = 65_535;

/**
 * Spreads `count` workgroups over x and y so that neither passes 65 535. In the kernel the index
 * is `wid.x + wid.y * groups.x`, and must be compared with the true count.
 *
 * @throws {RangeError} if even 65 535² workgroups are too few
 */
export function foldGrid(count: number): [number, number, number] {
  if (count <= MAX_GRID) return [Math.max(count, 1), 1, 1];
  const y = Math.ceil(count / MAX_GRID);
  if (y > MAX_GRID) {
    throw new RangeError(`Cannot dispatch ${count} workgroups: a grid holds 65535²`);
  }
  return [Math.ceil(count / y), y, 1];
}

/** Bytes of a matrix, not counting what its stride skips. */
export function bytesOf(...matrices: Layout[]): number {
  return matrices.reduce((sum, m) => sum + m.rows * m.cols * 4, 0);
}

/** 0, 1, … n - 1: for code that is written out. */
export function range(n: number): number[] {
  return Array.from({ length: n }, (_, i) => i);
}

/** Whether every row of `m` begins at a whole `vec4`. The last one of a row may be partly filled. */
export function startsAtVec4(m: Layout): boolean {
  return m.offset % 4 === 0 && m.stride % 4 === 0;
}

/** Whether every row of `m` can be read as whole `vec4`s. */
export function isVec4(m: Layout): boolean {
  return startsAtVec4(m) && m.cols % 4 === 0;
}

/**
 * Assembles the WGSL of a kernel from its parts.
 *
 * @throws {RangeError} if its loops are too long, see {@linkcode requireShortLoops}, or its grid is
 * larger than WebGPU allows
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { makeKernel } from "./kernel.ts";
 * import { read, write } from "./operand.ts";
 *
 * const [x, y] = [0, 1].map(() => ({ rows: 1, cols: 64, offset: 0, stride: 64 }));
 * const kernel = makeKernel({
 *   name: "double",
 *   shape: "1x64",
 *   operands: { x: read(x), y: write(y) },
 *   uniforms: { n: 64 },
 *   workgroup: 64,
 *   grid: [1, 1, 1],
 *   body: "if (lane < u.n) { y[lane] = 2.0 * x[lane]; }",
 * });
 * assert.equal(kernel.label, "double 1x64");
 * assert.deepEqual(kernel.access, ["read", "read_write"]);
 * ```
 */
export function makeKernel(spec: KernelSpec): Kernel {
  const operands = Object.entries(spec.operands);
  const lines = operands.map(([name, { access, element }], i) =>
    `@group(0) @binding(${i}) var<storage, ${access}> ${name}: array<${element}>;`
  );
  const members = Object.entries(spec.uniforms);
  const uniforms = new Uint32Array(Math.max(4, Math.ceil(members.length / 4) * 4));
  const floats = new Float32Array(uniforms.buffer);
  lines.push("struct Uniforms {");
  members.forEach(([name, value], i) => {
    if (value instanceof Float) floats[i] = value.value;
    else if (Number.isInteger(value) && value >= 0 && value < 2 ** 32) uniforms[i] = value;
    else throw new RangeError(`Kernel ${spec.name}: uniform ${name} is ${value}, not a u32`);
    lines.push(`  ${name}: ${value instanceof Float ? "f32" : "u32"},`);
  });
  for (let i = members.length; i < uniforms.length; i++) lines.push(`  pad${i}: u32,`);
  lines.push("}", `@group(0) @binding(${operands.length}) var<uniform> u: Uniforms;`);
  if (spec.declarations) lines.push(spec.declarations);
  const size = typeof spec.workgroup === "number" ? [spec.workgroup] : spec.workgroup;
  lines.push(
    `@compute @workgroup_size(${size.join(", ")})`,
    "fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_id) lid: vec3u,",
    "  @builtin(local_invocation_index) lane: u32, @builtin(num_workgroups) groups: vec3u) {",
    spec.body.trim(),
    "}",
  );
  const label = `${spec.name} ${spec.shape}`;
  const code = lines.join("\n");
  requireShortLoops({ label, code, iterations: spec.iterations });
  if (spec.grid.some((count) => count > MAX_GRID)) {
    throw new RangeError(
      `Cannot run ${label}: it needs ${spec.grid.join(" x ")} workgroups, and WebGPU allows ` +
        `${MAX_GRID} along each axis`,
    );
  }
  return {
    label,
    code,
    operands: operands.map(([, { matrix }]) => matrix),
    access: operands.map(([, { access }]) => access),
    uniforms,
    grid: spec.grid,
    flops: spec.flops ?? 0,
    bytes: spec.bytes ?? operands.reduce((sum, [, { bytes }]) => sum + bytes, 0),
    iterations: spec.iterations ?? 0,
  };
}

/**
 * WGSL of a sum (or another commutative fold) over a workgroup with a fixed order, so that reruns
 * are bitwise equal. Declares the array `name` and the function `name_reduce(lane, value)`, to be
 * called by every invocation; all get the result.
 */
export function workgroupReduce(
  name: string,
  width: number,
  fold: (a: string, b: string) => string = (a, b) => `${a} + ${b}`,
): string {
  const steps: string[] = [];
  for (let half = width / 2; half >= 1; half /= 2) {
    steps.push(
      `  if (lane < ${half}u) { ${name}[lane] = ${
        fold(`${name}[lane]`, `${name}[lane + ${half}u]`)
      }; }`,
      "  workgroupBarrier();",
    );
  }
  return `var<workgroup> ${name}: array<f32, ${width}>;
fn ${name}_reduce(lane: u32, value: f32) -> f32 {
  workgroupBarrier();
  ${name}[lane] = value;
  workgroupBarrier();
${steps.join("\n")}
  return ${name}[0];
}`;
}
