/**
 * Gradients of kernels that work element by element, with NumPy's broadcasting.
 *
 * @module
 */
import type { GradConfig, NamedAttrMap, Tensor } from "@tensorflow/tfjs-core";
import type { Tf } from "../ops/op.ts";

/** Gradient of a kernel of one input, from the input: (dy, x, attributes) to dx. */
type Unary = (dy: Tensor, x: Tensor, attributes: NamedAttrMap) => Tensor;
/** Gradient of a kernel of two inputs for one of them, before broadcasting is undone. */
type Binary = (dy: Tensor, a: Tensor, b: Tensor) => Tensor;

/** The gradients of unary, binary, selecting and piecewise constant kernels. */
export function elementwiseGradients(tf: Tf): GradConfig[] {
  const { mul, div, sub, add, neg, square, less, greater, lessEqual, greaterEqual } = tf;
  const zeros = (x: Tensor) => tf.zeros(x.shape);
  const where = (condition: Tensor, value: Tensor) =>
    tf.where(condition, value, tf.zerosLike(value));

  const fromInput: Record<string, Unary> = {
    Abs: (dy, x) => sub(where(greater(x, 0), dy), where(less(x, 0), dy)),
    ClipByValue: (dy, x, { clipValueMin, clipValueMax }) =>
      where(
        tf.logicalAnd(
          greaterEqual(x, clipValueMin as number),
          lessEqual(x, clipValueMax as number),
        ),
        dy,
      ),
    Cos: (dy, x) => neg(mul(dy, tf.sin(x))),
    Log: (dy, x) => div(dy, x),
    Log1p: (dy, x) => div(dy, add(x, 1)),
    Sin: (dy, x) => mul(dy, tf.cos(x)),
    Softplus: (dy, x) => mul(dy, tf.sigmoid(x)),
    Square: (dy, x) => mul(mul(dy, x), 2),
  };
  const fromOutput: Record<string, Unary> = {
    Exp: (dy, y) => mul(dy, y),
    Expm1: (dy, y) => mul(dy, add(y, 1)),
    Reciprocal: (dy, y) => neg(mul(dy, square(y))),
    Relu: (dy, y) => where(greater(y, 0), dy),
    Rsqrt: (dy, y) => mul(mul(dy, mul(square(y), y)), -0.5),
    Sigmoid: (dy, y) => mul(mul(dy, y), sub(1, y)),
    Sqrt: (dy, y) => div(dy, mul(y, 2)),
    Tanh: (dy, y) => mul(dy, sub(1, square(y))),
  };
  const linear: Record<string, (dy: Tensor) => Tensor> = {
    Cast: (dy) => tf.cast(dy, "float32"),
    Identity: (dy) => tf.cast(dy, "float32"),
    Neg: (dy) => neg(dy),
  };
  const binary: Record<string, [Binary, Binary]> = {
    Add: [(dy) => dy, (dy) => dy],
    Sub: [(dy) => dy, (dy) => neg(dy)],
    Multiply: [(dy, _, b) => mul(dy, b), (dy, a) => mul(dy, a)],
    RealDiv: [(dy, _, b) => div(dy, b), (dy, a, b) => neg(div(mul(dy, a), square(b)))],
    Maximum: [
      (dy, a, b) => where(greaterEqual(a, b), dy),
      (dy, a, b) => where(less(a, b), dy),
    ],
    Minimum: [
      (dy, a, b) => where(lessEqual(a, b), dy),
      (dy, a, b) => where(greater(a, b), dy),
    ],
    Pow: [
      (dy, a, b) => mul(mul(dy, b), tf.pow(a, sub(b, 1))),
      // a^b has no real slope in b at a <= 0; the inner where keeps its logarithm finite.
      (dy, a, b) => mul(mul(dy, tf.pow(a, b)), tf.log(tf.where(greater(a, 0), a, tf.onesLike(a)))),
    ],
    SquaredDifference: [
      (dy, a, b) => mul(mul(dy, sub(a, b)), 2),
      (dy, a, b) => mul(mul(dy, sub(b, a)), 2),
    ],
  };
  const constant: Record<string, string[]> = {
    ...Object.fromEntries(
      ["ArgMax", "ArgMin", "Ceil", "Floor", "LogicalNot", "OnesLike", "Round", "Sign", "Step"]
        .concat("ZerosLike").map((name) => [name, ["x"]]),
    ),
    ...Object.fromEntries(
      ["Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "NotEqual"]
        .concat("LogicalAnd", "LogicalOr").map((name) => [name, ["a", "b"]]),
    ),
    OneHot: ["indices"],
  };

  return [
    ...Object.entries(fromInput).map(([kernelName, rule]): GradConfig => ({
      kernelName,
      inputsToSave: ["x"],
      gradFunc: (dy, [x], attributes) => ({ x: () => rule(dy as Tensor, x, attributes) }),
    })),
    ...Object.entries(fromOutput).map(([kernelName, rule]): GradConfig => ({
      kernelName,
      outputsToSave: [true],
      gradFunc: (dy, [y], attributes) => ({ x: () => rule(dy as Tensor, y, attributes) }),
    })),
    ...Object.entries(linear).map(([kernelName, rule]): GradConfig => ({
      kernelName,
      gradFunc: (dy) => ({ x: () => rule(dy as Tensor) }),
    })),
    ...Object.entries(binary).map(([kernelName, [toA, toB]]): GradConfig => ({
      kernelName,
      inputsToSave: ["a", "b"],
      gradFunc: (dy, [a, b]) => ({
        a: () => sumTo(tf, toA(dy as Tensor, a, b), a.shape),
        b: () => sumTo(tf, toB(dy as Tensor, a, b), b.shape),
      }),
    })),
    ...Object.entries(constant).map(([kernelName, names]): GradConfig => ({
      kernelName,
      inputsToSave: names,
      gradFunc: (_dy, inputs) =>
        Object.fromEntries(names.map((name, i) => [name, () => zeros(inputs[i])])),
    })),
    {
      kernelName: "Select",
      inputsToSave: ["condition"],
      gradFunc: (dy, [condition]) => ({
        condition: () => zeros(condition),
        t: () => where(condition, dy as Tensor),
        e: () => tf.where(condition, tf.zerosLike(dy as Tensor), dy as Tensor),
      }),
    },
    {
      kernelName: "AddN",
      saveAllInputs: true,
      gradFunc: (dy, inputs) =>
        Object.fromEntries(inputs.map((_, i) => [i, () => tf.clone(dy as Tensor)])),
    },
  ];
}

/** Undoes broadcasting: sums `x` over the axes that `shape` lacks or has as 1. */
export function sumTo(tf: Tf, x: Tensor, shape: number[]): Tensor {
  const lead = x.rank - shape.length;
  const axes = x.shape.map((_, i) => i)
    .filter((i) => i < lead || (shape[i - lead] === 1 && x.shape[i] !== 1));
  return tf.reshape(axes.length ? tf.sum(x, axes) : x, shape);
}
