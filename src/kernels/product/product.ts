/**
 * What the kernel families of the matrix product share.
 *
 * @module
 */
import { bytesOf, type Layout, layoutUniforms } from "../wgsl/kernel.ts";

/**
 * Which operand is transposed: `nt` is a·bᵀ (a linear layer with weights `[out, in]`), `nn` a·b (the
 * gradient of its input), `tn` aᵀ·b (the gradient of its weights).
 */
export type Form = "nt" | "nn" | "tn";

/** One product, or, where `chunk` is less than `k`, all its partial sums over parts of k. */
export interface Product {
  readonly form: Form;
  /** Rows of c. */
  readonly m: number;
  /** Columns of c. */
  readonly n: number;
  /** Terms of each sum. */
  readonly k: number;
  readonly a: Layout;
  readonly b: Layout;
  /** The result; of partial sums the first, with the others behind it, each packed. */
  readonly c: Layout;
  /** What is added to the product: nothing, what c holds, or the matrix d. */
  readonly add: "none" | "inPlace" | Layout;
  /** Terms that one workgroup sums: `k`, or a multiple of the family's depth. */
  readonly chunk: number;
}

/** The matrix that is added, if it is one apart from c. */
export function addend(p: Product): Layout | null {
  return typeof p.add === "object" ? p.add : null;
}

/** The uniforms of a product's kernel, the same for all families. */
export function productUniforms(p: Product): Record<string, number> {
  const d = addend(p);
  const layouts = layoutUniforms({ a: p.a, b: p.b, c: p.c, ...(d ? { d } : {}) });
  return { m: p.m, n: p.n, k: p.k, chunk: p.chunk, ...layouts };
}

/** Label, work and traffic of a product's kernel. */
export function productCosts(
  p: Product,
): { name: string; shape: string; flops: number; bytes: number } {
  const d = addend(p);
  const parts = Math.ceil(p.k / p.chunk);
  const inPlace = p.add === "inPlace" ? bytesOf(p.c) : 0;
  return {
    name: `matmul_${p.form}`,
    shape: `${p.m}x${p.n}x${p.k}${parts > 1 ? ` in ${parts} parts` : ""}`,
    flops: 2 * p.m * p.n * p.k,
    bytes: bytesOf(p.a, p.b, ...(d ? [d] : [])) + parts * bytesOf(p.c) + inPlace,
  };
}

/**
 * WGSL that stores `sum`, a `vec4f` if `vec`, else an f32, and adds what is to be added.
 * `row` and `col` are WGSL.
 */
export function store(p: Product, row: string, col: string, sum: string, vec: boolean): string {
  const at = (name: string, part = "") => {
    const index = `${part}u.${name}_offset + (${row}) * u.${name}_stride + ${col}`;
    return vec ? `${name}[(${index}) / 4u]` : `${name}[${index}]`;
  };
  const c = at("c", p.chunk < p.k ? "wid.z * u.m * u.n + " : "");
  const add = addend(p) ? ` + ${at("d")}` : p.add === "inPlace" ? ` + ${c}` : "";
  return `${c} = ${sum}${add};`;
}
