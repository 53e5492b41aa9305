/**
 * The matrix product, in the three forms that a linear layer and its gradients need. Any sizes,
 * offsets and strides work; rows that are whole `vec4`s are faster.
 *
 * @module
 */
import type { Capabilities } from "../wgsl/device.ts";
import {
  foldGrid,
  type Kernel,
  type KernelVariants,
  type Layout,
  layoutUniforms,
  makeKernel,
} from "../wgsl/kernel.ts";
import { MOST_ITERATIONS, rounds } from "../wgsl/loops.ts";
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
  /** `[m, n]`. */
  readonly c: Layout;
  /**
   * What is added to the product: nothing, what c holds already, or another matrix d of the shape
   * of c. Default `none`.
   */
  readonly add?: "none" | "inPlace" | Layout;
  readonly capabilities: Capabilities;
  /** Overrules the choice of tile on GPUs: for tuning. */
  readonly tile?: RatedTile;
}

/** The matrix that an operand of a kernel is. `partial` is scratch memory. */
export type MatmulOperand = "a" | "b" | "c" | "d" | "partial";

/** The kernels of a product, to be dispatched in order. */
export interface MatmulPlan {
  readonly steps: readonly { kernel: Kernel; operands: readonly MatmulOperand[] }[];
  /** Elements of `partial`, or 0 if the product needs none. */
  readonly partialElements: number;
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
 * Plans c = a·b in the given form, plus what `add` says. Where c has too few tiles to fill the
 * device and the sums are long (gradients of weights), parts of the sums go to a scratch matrix
 * first and are added in a fixed order: results are the same in every run.
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
 * const [a, b, c] = [matrix(64, 32), matrix(48, 32), matrix(64, 48)];
 * const { steps } = matmul({ form: "nt", a, b, c, capabilities });
 * assert.equal(steps[0].kernel.label, "matmul_nt 64x48x32");
 * ```
 */
export function matmul(spec: MatmulSpec): MatmulPlan {
  const { form, a, b, c, capabilities, add = "none" } = spec;
  const [m, k] = form === "tn" ? [a.cols, a.rows] : [a.rows, a.cols];
  const [n, kOfB] = form === "nt" ? [b.rows, b.cols] : [b.cols, b.rows];
  const d = typeof add === "object" ? add : c;
  const fits = k === kOfB && c.rows === m && c.cols === n && d.rows === m && d.cols === n;
  if (!fits || m * n * k === 0) {
    const shapes = [a, b, c, d].map((x) => `${x.rows}x${x.cols}`).join(", ");
    throw new RangeError(`Cannot multiply (${form}) the matrices a, b, c, d of shapes ${shapes}`);
  }
  const whole: Product = { form, m, n, k, a, b, c, add, chunk: k };
  const mostParts = Math.min(
    Math.floor(k / LEAST_PART),
    Math.floor(Math.min(capabilities.maxBindingBytes, PARTIAL_BYTES) / (4 * m * n)),
  );
  const { parts, make } = family(whole, spec, Math.max(1, mostParts));
  const operands: MatmulOperand[] = addend(whole) ? ["a", "b", "c", "d"] : ["a", "b", "c"];
  // A multiple of every tile's depth, so that parts begin at whole tiles and vec4s.
  const chunk = Math.ceil(k / parts / 32) * 32;
  if (chunk >= k) return { steps: [{ kernel: make(whole), operands }], partialElements: 0 };
  const partial: Layout = { rows: m, cols: n, offset: 0, stride: n };
  const product = make({ ...whole, c: partial, add: "none", chunk });
  const count = Math.ceil(k / chunk);
  return {
    steps: [
      { kernel: product, operands: ["a", "b", "partial"] },
      {
        kernel: sumParts(whole, count),
        operands: addend(whole) ? ["partial", "c", "d"] : ["partial", "c"],
      },
    ],
    partialElements: count * m * n,
  };
}

/** Chooses how to multiply: the maker of the kernel, and in how many parts. */
function family(
  p: Product,
  { capabilities, tile }: MatmulSpec,
  mostParts: number,
): { parts: number; make: (p: Product) => Kernel } {
  if (p.form === "nt" && p.m === 1 && !tile) {
    return { parts: 1, make: ({ a, b, c, add }) => vectorProduct({ a, b, c, add, capabilities }) };
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

/** c = the sum of `count` packed matrices, and what `p.add` says. */
function sumParts(p: Product, count: number): Kernel {
  const d = addend(p);
  const [x, y] = foldGrid(Math.ceil(p.m * p.n / 64));
  const c = "c[u.c_offset + row * u.c_stride + col]";
  const add = d ? "d[u.d_offset + row * u.d_stride + col]" : p.add === "inPlace" ? c : "0.0";
  return makeKernel({
    name: "matmul_sum",
    shape: `${p.m}x${p.n}x${count}`,
    buffers: { parts: "read", c: "read_write", ...(d ? { d: "read" as const } : {}) },
    uniforms: {
      m: p.m,
      n: p.n,
      count,
      ...layoutUniforms({ c: p.c, ...(d ? { d } : {}) }),
    },
    workgroup: 64,
    grid: [x, y, 1],
    iterations: count,
    body: `
let size = u.m * u.n;
let i = (wid.x + wid.y * groups.x) * 64u + lane;
if (i >= size) { return; }
let row = i / u.n;
let col = i % u.n;
var sum = ${add};
for (var part = 0u; part < u.count; part++) { sum += parts[part * size + i]; }
${c} = sum;`,
    flops: count * p.m * p.n,
    bytes: 4 * p.m * p.n * (count + (p.add === "none" ? 1 : 2)),
  });
}
