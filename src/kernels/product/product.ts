/**
 * What the kernel families of the matrix product share.
 *
 * @module
 */
import { isVec4, type KernelSpec } from "../wgsl/kernel.ts";
import { type Layout, layoutUniforms, read, update, write } from "../wgsl/operand.ts";
import { type Sink, sinkMatrices } from "../wgsl/sink.ts";

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
  /** The result, c; partial sums lie one behind the other, each packed. */
  readonly c: Sink;
  /** Terms that one workgroup sums: `k`, or a multiple of the family's depth. */
  readonly chunk: number;
}

/** The matrix d that is added, if it is one apart from c. */
export function addend({ into, add }: Sink): Layout | null {
  return add === into ? null : add;
}

/** Label, operands, uniforms and work of a product's kernel: the same for all families. */
export function productBase(
  p: Product,
): Pick<KernelSpec, "name" | "shape" | "operands" | "uniforms" | "flops"> {
  const { a, b, c: { into, add } } = p;
  const d = addend(p.c);
  const parts = Math.ceil(p.k / p.chunk);
  const type = isVec4Sink(p) ? "vec4f" : "f32";
  const operands = {
    a: read(a, isVec4(a) ? "vec4f" : "f32"),
    b: read(b, isVec4(b) ? "vec4f" : "f32"),
    c: (add === into ? update : write)(into, type),
    ...d ? { d: read(d, type) } : {},
  };
  return {
    name: `matmul_${p.form}`,
    shape: `${p.m}x${p.n}x${p.k}${parts > 1 ? ` in ${parts} parts` : ""}`,
    operands,
    uniforms: { m: p.m, n: p.n, k: p.k, chunk: p.chunk, ...layoutUniforms(operands) },
    flops: 2 * p.m * p.n * p.k,
  };
}

/** Whether c, and what is added, can be reached in whole `vec4`s. */
export function isVec4Sink({ c }: Product): boolean {
  return sinkMatrices(c).every(isVec4);
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
  const add = addend(p.c) ? ` + ${at("d")}` : p.c.add ? ` + ${c}` : "";
  return `${c} = ${sum}${add};`;
}
