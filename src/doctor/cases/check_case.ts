/**
 * Compares what an op's kernels compute with the op's naive twin in float64.
 *
 * @module
 */
import type { Kernel } from "../../kernels/wgsl/kernel.ts";
import type { Capabilities } from "../../kernels/wgsl/device.ts";
import type { Dtype, Tensor } from "../../ops/op.ts";
import type { Gpu } from "../../webgpu/device/device.ts";
import { Float64Backend, type Matrix64, matrixValues } from "../float64/backend.ts";
import { gradients } from "../float64/tensor64.ts";
import type { Random } from "./random.ts";
import { type GivenInput, type Mode, runCase } from "./run_case.ts";

/** One input of a check. */
export interface CaseInput {
  readonly rows: number;
  readonly cols: number;
  readonly dtype?: Dtype;
  /** Default: standard normal numbers. */
  readonly values?: ArrayLike<number>;
  /** Whether its gradient is checked; default: true for f32. */
  readonly gradient?: boolean;
}

/** One op with inputs of one shape. */
export interface OpCase {
  /** The op, and what is special here. */
  readonly name: string;
  /** For people, e.g. `37x22`. */
  readonly shape: string;
  readonly inputs: readonly CaseInput[];
  readonly apply: (inputs: Tensor[]) => Tensor[];
  /** Outputs whose gradients are random; default: the first, if a gradient is wanted. */
  readonly cotangents?: readonly number[];
  /** Outputs that are losses, with their weights; then there are no cotangents. */
  readonly losses?: Readonly<Record<number, number>>;
  /** Which elements of the outputs are compared: kernels may leave others alone. Default: all. */
  readonly isCompared?: (index: number) => boolean;
  /** Relative errors that are allowed; default 1e-5 and 1e-4. Whole numbers have to be equal. */
  readonly tolerance?: { readonly forward?: number; readonly gradient?: number };
}

/** Which kernels an adapter is to use. */
export interface Family {
  /** `software` or `GPU`. */
  readonly name: string;
  readonly capabilities: Partial<Capabilities>;
}

/** What came of a check. Errors are ‖got − want‖ / ‖want‖, infinite where there is a NaN. */
export interface CaseReport {
  readonly op: string;
  readonly shape: string;
  readonly kernels: string;
  /** The largest of all outputs. */
  readonly output: number;
  /** The largest of each input's gradient, in all ways to write it; null where there is none. */
  readonly gradients: readonly (number | null)[];
  readonly ok: boolean;
  /** An error in words, or that only a second draw of inputs was within bounds; else null. */
  readonly note: string | null;
}

/**
 * ‖got − want‖ / ‖want‖, or ‖got − want‖ of zeros; infinite if anything is not a number.
 *
 * @param earlier what was added to: where the sum cancels, its rounding stays
 */
export function relativeError(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  earlier?: ArrayLike<number> | null,
): number {
  let difference = 0, norm = 0;
  for (let i = 0; i < want.length; i++) {
    difference += (got[i] - want[i]) ** 2;
    norm += want[i] ** 2 + (earlier ? earlier[i] ** 2 : 0);
  }
  if (got.length !== want.length || Number.isNaN(difference)) return Infinity;
  return norm === 0 ? Math.sqrt(difference) : Math.sqrt(difference / norm);
}

/**
 * Checks a case with one family of kernels. Where one rounding decides (two keys that score alike,
 * a product that is nearly zero before its ReLU) the two may differ and both be right, so what
 * differs is drawn again once.
 *
 * @param again the same case with other inputs
 */
export async function checkCase(
  gpu: Gpu,
  given: OpCase,
  again: () => OpCase,
  family: Family,
  random: Random,
  change?: (kernel: Kernel) => Kernel,
): Promise<CaseReport> {
  const first = await checkOnce(gpu, given, family, random, change);
  if (first.ok || first.note) return first;
  const second = await checkOnce(gpu, again(), family, random, change);
  return second.ok ? { ...second, note: "only with a second draw of inputs" } : first;
}

async function checkOnce(
  gpu: Gpu,
  given: OpCase,
  { name, capabilities }: Family,
  random: Random,
  change?: (kernel: Kernel) => Kernel,
): Promise<CaseReport> {
  const { apply, losses, isCompared = () => true, tolerance = {} } = given;
  const { forward = 1e-5, gradient = 1e-4 } = tolerance;
  const inputs = given.inputs.map((input) => valuesFor(input, random));
  let output = 0, isExact = true;
  const errors: (number | null)[] = inputs.map((input) => input.gradient ? 0 : null);
  let note: string | null = null;
  try {
    const want = reference(given, inputs, random);
    const hasGradients = inputs.some((input) => input.gradient);
    const modes: Mode[] = hasGradients ? ["strided", "addFrom"] : ["strided"];
    for (const mode of modes) {
      const got = await runCase(gpu, {
        ...{ inputs, apply, losses, capabilities, mode, change },
        cotangents: want.cotangents,
        random: (count) => random.normal(count),
      });
      want.outputs.forEach((values, i) => {
        const [own, wanted] = [got.outputs[i], values].map((x) =>
          x.filter((_, j) => isCompared(j))
        );
        const error = relativeError(own, wanted);
        output = Math.max(output, error);
        if (got.outputs[i] instanceof Int32Array && error > 0) isExact = false;
      });
      got.gradients.forEach((result, i) => {
        if (!result) return;
        const { got, earlier } = result;
        const total = earlier ? want.gradients[i].map((x, j) => x + earlier[j]) : want.gradients[i];
        errors[i] = Math.max(errors[i]!, relativeError(got, total, earlier));
      });
    }
  } catch (error) {
    note = error instanceof Error ? error.message.split("\n")[0] : String(error);
  }
  return {
    op: given.name,
    shape: given.shape,
    kernels: name,
    output,
    gradients: errors,
    ok: note === null && isExact && output <= forward && errors.every((e) => (e ?? 0) <= gradient),
    note,
  };
}

function valuesFor({ rows, cols, dtype, values, gradient }: CaseInput, random: Random): GivenInput {
  const given = values ?? random.normal(rows * cols);
  return {
    ...{ rows, cols, dtype },
    values: dtype === "i32" ? Int32Array.from(given) : Float32Array.from(given),
    gradient: gradient ?? dtype !== "i32",
  };
}

/** Outputs and gradients of the twin, and the gradients of outputs that they belong to. */
function reference(
  { apply, losses, ...given }: OpCase,
  inputs: readonly GivenInput[],
  random: Random,
) {
  const backend = new Float64Backend();
  const leaves = inputs.map(({ rows, cols, dtype = "f32", values, gradient }) =>
    backend.matrix({ rows, cols, dtype }, values, gradient)
  );
  const outputs = apply(leaves) as Matrix64[];
  const hasGradients = inputs.some((input) => input.gradient);
  const chosen = given.cotangents ?? (losses || !hasGradients ? [] : [0]);
  const cotangents = new Map(
    chosen.map((i) => [i, random.normal(outputs[i].rows * outputs[i].cols)]),
  );
  const roots = losses
    ? Object.entries(losses).map(([i, weight]) => ({
      tensor: outputs[Number(i)].value,
      gradient: [weight],
    }))
    : [...cotangents].map(([i, gradient]) => ({ tensor: outputs[i].value, gradient }));
  return {
    outputs: outputs.map(matrixValues),
    cotangents,
    gradients: gradients(roots, leaves.map(({ value }) => value)),
  };
}
