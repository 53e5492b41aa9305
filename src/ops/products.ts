/**
 * Matrix products of ops.
 *
 * @module
 */
import { matmul } from "../kernels/product/matmul.ts";
import type { Form } from "../kernels/product/product.ts";
import type { GradientSink, Matrix, Recorder } from "./op.ts";

/** Records c = a · b in a form, plus what is added; see `matmul`. */
export function recordMatmul(
  r: Recorder,
  product: { form: Form; a: Matrix; b: Matrix; c: GradientSink },
): void {
  const { capabilities } = r;
  const scratch = (rows: number, cols: number) => r.temporary(rows, cols);
  for (const kernel of matmul({ ...product, scratch, capabilities })) r.dispatch(kernel);
}
