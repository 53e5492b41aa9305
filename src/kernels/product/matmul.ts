/**
 * The matrix product, in the three forms that a linear layer and its gradients need. Any sizes,
 * offsets and strides work; rows that are whole `vec4`s are faster.
 *
 * @module
 */
import type { Capabilities } from "../wgsl/device.ts";
import { foldGrid, type Kernel, type KernelVariants, makeKernel } from "../wgsl/kernel.ts";
import { MOST_ITERATIONS, rounds } from "../wgsl/loops.ts";
import { type Layout, layoutUniforms, read, update, write } from "../wgsl/operand.ts";
import { type Sink, sinkMatrices } from "../wgsl/sink.ts";
import { addend, type Form, type Product } from "./product.ts";
import { DEPTH, subgroupLanes, subgroupProduct, subgroupTile } from "./subgroup.ts";
import { tiledProduct } from "./tiled.ts";
import {
  chooseParts,
  PRODUCT_TILES,
  rankTiles,
  type RatedTile,
  tileName,
  TILES_VERSION,
} from "./tiles.ts";
import { fitsDevice } from "./tile_loop.ts";
import { vectorProduct } from "./vector.ts";

export type { Form } from "./product.ts";

/** What {@linkcode matmul} multiplies. */
export interface MatmulSpec {
  /** nt: c = a·bᵀ, nn: c = a·b, tn: c = aᵀ·b. */
  readonly form: Form;
  /** `[m, k]`, for tn `[k, m]`. */
  readonly a: Layout;
  /** `[k, n]`, for nt `[n, k]`. */
  readonly b: Layout;
  /** c, `[m, n]`, and what is added to the product. */
  readonly c: Sink;
  /** Gives memory for partial sums, where they are wanted: a packed matrix. */
  readonly scratch: (rows: number, cols: number) => Layout;
  readonly capabilities: Capabilities;
  /** Overrules the choice of tile on GPUs: for tuning. */
  readonly tile?: RatedTile;
}

/** Terms of a sum that are worth a part of their own. */
const LEAST_PART = 128;
/**
 * Bytes of a product's parts: what every WebGPU adapter can bind, so that their number does not
 * depend on the adapter.
 */
const PARTIAL_BYTES = 2 ** 27;
/** Workgroups that keep a software adapter busy. */
const SOFTWARE_GROUPS = 4;

/**
 * The kernels of c = a·b in the given form, plus what is to be added, to be dispatched in order.
 * Where c has too few tiles to fill the device and the sums are long (gradients of weights), parts
 * of the sums go to a scratch matrix first and are added in a fixed order: results are the same in
 * every run.
 *
 * @throws {RangeError} if the shapes do not fit together
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { matmul } from "./matmul.ts";
 *
 * const matrix = (rows: number, cols: number) => ({ rows, cols, offset: 0, stride: cols });
 * const capabilities = {
 *   software: false,
 *   maxBindingBytes: 2 ** 30,
 *   workgroupBytes: 16_384,
 *   maxInvocations: 256,
 *   subgroups: null,
 * };
 * const [a, b, into] = [matrix(64, 32), matrix(48, 32), matrix(64, 48)];
 * const c = { into, add: null };
 * const kernels = matmul({ form: "nt", a, b, c, scratch: matrix, capabilities });
 * assert.equal(kernels[0].label, "matmul_nt 64x48x32");
 * ```
 */
export function matmul(spec: MatmulSpec): Kernel[] {
  const { form, a, b, c, scratch, capabilities } = spec;
  const [m, k] = form === "tn" ? [a.cols, a.rows] : [a.rows, a.cols];
  const [n, kOfB] = form === "nt" ? [b.rows, b.cols] : [b.cols, b.rows];
  const matrices = sinkMatrices(c);
  const fits = k === kOfB && matrices.every(({ rows, cols }) => rows === m && cols === n);
  if (!fits || m * n * k === 0) {
    const shapes = [a, b, ...matrices].map((x) => `${x.rows}x${x.cols}`).join(", ");
    throw new RangeError(`Cannot multiply (${form}) the matrices a, b, c of shapes ${shapes}`);
  }
  const whole: Product = { form, m, n, k, a, b, c, chunk: k };
  const mostParts = Math.min(
    Math.floor(k / LEAST_PART),
    Math.floor(Math.min(capabilities.maxBindingBytes, PARTIAL_BYTES) / (4 * m * n)),
  );
  const { parts: wanted, make } = family(whole, spec, Math.max(1, mostParts));
  // A multiple of every tile's depth, so that parts begin at whole tiles and vec4s.
  const chunk = Math.ceil(k / wanted / 32) * 32;
  if (chunk >= k) return [make(whole)];
  const count = Math.ceil(k / chunk);
  const parts = scratch(count * m, n);
  return [make({ ...whole, c: { into: parts, add: null }, chunk }), sumParts(whole, parts)];
}

/** Chooses how to multiply: the maker of the kernel, and in how many parts. */
function family(
  p: Product,
  { capabilities, tile }: MatmulSpec,
  mostParts: number,
): { parts: number; make: (p: Product) => Kernel } {
  if (p.form === "nt" && p.m === 1 && !tile) {
    return { parts: 1, make: ({ a, b, c }) => vectorProduct({ a, b, c, capabilities }) };
  }
  const lanes = capabilities.software ? subgroupLanes(capabilities.subgroups) : null;
  if (lanes && !tile) {
    const { rows, cols } = subgroupTile(lanes);
    const groups = Math.ceil(p.m / rows) * Math.ceil(p.n / cols);
    const parts = Math.max(
      Math.min(mostParts, Math.ceil(SOFTWARE_GROUPS / groups)),
      leastParts(p.k, DEPTH),
    );
    return { parts, make: (p) => subgroupProduct(p, lanes) };
  }
  const size = [p.m, p.n, p.k] as const;
  const shallowest = Math.min(...(tile ? [tile] : PRODUCT_TILES).map(({ depth }) => depth));
  const parts = Math.max(chooseParts(size, mostParts), leastParts(p.k, shallowest));
  if (tile) return { parts, make: (p) => tiledProduct(p, tile) };
  const tiles = rankTiles(PRODUCT_TILES.filter((t) => fitsDevice(t, capabilities)), size, parts);
  return { parts, make: (p) => anyTile(p, tiles, capabilities) };
}

/** Parts of so long a sum that no loop over one is too long. */
function leastParts(k: number, depth: number): number {
  return rounds(k, MOST_ITERATIONS * depth);
}

/** The product with the first of some tiles, and, where that is worth a trial, the others. */
function anyTile(
  p: Product,
  tiles: readonly RatedTile[],
  { software }: Capabilities,
): Kernel {
  const kernel = tiledProduct(p, tiles[0]);
  if (software) return kernel;
  const variants: KernelVariants = {
    key: `matmul_tiled ${TILES_VERSION} ${p.form} ${p.m}x${p.n}x${p.k}`,
    names: tiles.map(tileName),
    make: (name) => tiledProduct(p, tiles.find((t) => tileName(t) === name)!),
  };
  return { ...kernel, variants };
}

/** c = the sum of packed matrices, and what is to be added. */
function sumParts(p: Product, parts: Layout): Kernel {
  const count = parts.rows / p.m;
  const { into, add } = p.c;
  const d = addend(p.c);
  const operands = {
    parts: read(parts),
    c: (add === into ? update : write)(into),
    ...d ? { d: read(d) } : {},
  };
  const { parts: _, ...placed } = operands;
  const [x, y] = foldGrid(Math.ceil(p.m * p.n / 64));
  const c = "c[u.c_offset + row * u.c_stride + col]";
  const added = d ? "d[u.d_offset + row * u.d_stride + col]" : add ? c : "0.0";
  return makeKernel({
    name: "matmul_sum",
    shape: `${p.m}x${p.n}x${count}`,
    operands,
    uniforms: { m: p.m, n: p.n, count, ...layoutUniforms(placed) },
    workgroup: 64,
    grid: [x, y, 1],
    iterations: count,
    body: `
let size = u.m * u.n;
let i = (wid.x + wid.y * groups.x) * 64u + lane;
if (i >= size) { return; }
let row = i / u.n;
let col = i % u.n;
var sum = ${added};
for (var part = 0u; part < u.count; part++) { sum += parts[part * size + i]; }
${c} = sum;`,
    flops: count * p.m * p.n,
  });
}
