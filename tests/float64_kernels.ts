/**
 * The kernels of the float64 test backend, as functions of blocks.
 *
 * @module
 */
import type { DataType, KernelBackend, KernelConfig, TensorInfo } from "@tensorflow/tfjs-core";
import {
  axesOf,
  type Block,
  block,
  concat,
  fold,
  gatherView,
  map,
  parts,
  placeView,
  reduce,
  sizeOf,
  slice,
  stridesOf,
  transpose,
  type Values,
  zip,
} from "./float64_blocks.ts";
import { argBest, cumsum, gather, matMul, rowOffsets, softmax, topK } from "./float64_loops.ts";

/** Attributes of all kernels, as tfjs-core names them. */
interface Attributes {
  alpha: number;
  axis: number;
  batchDims: number;
  begin: number | number[];
  clipValueMax: number;
  clipValueMin: number;
  constantValue: number;
  depth: number;
  dim: number;
  dims: number | number[];
  dtype: DataType;
  exclusive: boolean;
  k: number;
  keepDims: boolean;
  numOrSizeSplits: number | number[];
  offValue: number;
  onValue: number;
  paddings: [number, number][];
  perm: number[];
  reductionIndices: number | number[];
  reps: number[];
  reverse: boolean;
  shape: number[];
  size: number | number[];
  start: number;
  step: number;
  stop: number;
  transposeA: boolean;
  transposeB: boolean;
  value: number;
}
type Rule = (inputs: Block[], attributes: Attributes) => Block | Block[];

const unary: Record<string, (x: number) => number> = {
  Abs: Math.abs,
  Ceil: Math.ceil,
  Cos: Math.cos,
  Exp: Math.exp,
  Expm1: Math.expm1,
  Floor: Math.floor,
  Log: Math.log,
  Log1p: Math.log1p,
  Neg: (x) => -x,
  Reciprocal: (x) => 1 / x,
  Relu: (x) => Math.max(x, 0),
  Round: (x) => {
    const below = Math.floor(x);
    return x - below === 0.5 ? 2 * Math.round(below / 2) : Math.round(x);
  },
  Rsqrt: (x) => 1 / Math.sqrt(x),
  Sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  Sign: Math.sign,
  Sin: Math.sin,
  Softplus: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
  Sqrt: Math.sqrt,
  Square: (x) => x * x,
  Tanh: Math.tanh,
};

const binary: Record<string, (a: number, b: number) => number> = {
  Add: (a, b) => a + b,
  FloorDiv: (a, b) => Math.floor(a / b),
  Maximum: Math.max,
  Minimum: Math.min,
  Mod: (a, b) => a - b * Math.floor(a / b),
  Multiply: (a, b) => a * b,
  Pow: Math.pow,
  RealDiv: (a, b) => a / b,
  SquaredDifference: (a, b) => (a - b) ** 2,
  Sub: (a, b) => a - b,
};

const logical: Record<string, (a: number, b: number) => boolean> = {
  Equal: (a, b) => a === b,
  Greater: (a, b) => a > b,
  GreaterEqual: (a, b) => a >= b,
  Less: (a, b) => a < b,
  LessEqual: (a, b) => a <= b,
  LogicalAnd: (a, b) => !!(a && b),
  LogicalOr: (a, b) => !!(a || b),
  NotEqual: (a, b) => a !== b,
};

/** Reduces `count` values from `start` on. */
type Reduction = (x: Values, start: number, count: number) => number;

/** Each reduction, and the attribute that names its axes. */
const reductions: Record<string, [Reduction, "axis" | "reductionIndices"]> = {
  All: [(x, i, n) => x.subarray(i, i + n).every(Boolean) ? 1 : 0, "axis"],
  Any: [(x, i, n) => x.subarray(i, i + n).some(Boolean) ? 1 : 0, "axis"],
  Max: [(x, i, n) => fold(x, i, n, Math.max, -Infinity), "reductionIndices"],
  Mean: [(x, i, n) => fold(x, i, n, (a, b) => a + b, 0) / n, "axis"],
  Min: [(x, i, n) => fold(x, i, n, Math.min, Infinity), "axis"],
  Prod: [(x, i, n) => fold(x, i, n, (a, b) => a * b, 1), "axis"],
  Sum: [(x, i, n) => fold(x, i, n, (a, b) => a + b, 0), "axis"],
};

const rules: Record<string, Rule> = {
  AddN: (inputs) => inputs.reduce((a, b) => zip(a, b, (x, y) => x + y, a.dtype)),
  ArgMax: ([x], { axis }) => argBest(x, axis, (a, b) => a > b),
  ArgMin: ([x], { axis }) => argBest(x, axis, (a, b) => a < b),
  BatchMatMul: ([a, b], { transposeA, transposeB }) => matMul(a, b, transposeA, transposeB),
  Cast: ([x], { dtype }) => {
    // To int32 a number loses its fraction; to bool anything but 0 is true.
    return map(x, dtype === "bool" ? (v) => Number(v !== 0) : (v) => v, dtype);
  },
  ClipByValue: ([x], { clipValueMin, clipValueMax }) =>
    map(x, (v) => Math.min(Math.max(v, clipValueMin), clipValueMax), x.dtype),
  Concat: (inputs, { axis }) => concat(inputs, axis < 0 ? axis + inputs[0].shape.length : axis),
  Cumsum: ([x], { axis, exclusive, reverse }) => cumsum(x, axis, exclusive, reverse),
  Fill: (_, { shape, value, dtype }) => {
    const out = block(shape, dtype);
    out.values.fill(value);
    return out;
  },
  GatherNd: ([params, indices]) => {
    const { offsets, inner, lead } = rowOffsets(indices, params.shape);
    const out = block([...lead, ...params.shape.slice(indices.shape.at(-1))], params.dtype);
    offsets.forEach((from, i) =>
      out.values.set(params.values.subarray(from, from + inner), i * inner)
    );
    return out;
  },
  GatherV2: ([x, indices], { axis, batchDims }) => gather(x, indices, axis, batchDims),
  LogicalNot: ([x]) => map(x, (v) => v ? 0 : 1, "bool"),
  LogSoftmax: ([x]) => softmax(x, true),
  OneHot: ([indices], { depth, onValue, offValue, dtype }) => {
    const out = block([...indices.shape, depth], dtype);
    out.values.fill(offValue);
    indices.values.forEach((index, i) => {
      if (index >= 0 && index < depth) out.values[i * depth + index] = onValue;
    });
    return out;
  },
  OnesLike: ([x]) => map(x, () => 1, x.dtype),
  Pack: (inputs, { axis }) => {
    const at = axis < 0 ? axis + inputs[0].shape.length + 1 : axis;
    return concat(inputs.map((x) => ({ ...x, shape: x.shape.toSpliced(at, 0, 1) })), at);
  },
  PadV2: ([x], { paddings, constantValue }) => {
    const out = block(
      x.shape.map((n, i) => n + paddings[i][0] + paddings[i][1]),
      x.dtype,
    );
    out.values.fill(constantValue);
    placeView(x, out, paddings.map(([before]) => before));
    return out;
  },
  Range: (_, { start, stop, step, dtype }) => {
    const out = block([Math.max(0, Math.ceil((stop - start) / step))], dtype);
    for (let i = 0; i < out.values.length; i++) out.values[i] = start + i * step;
    return out;
  },
  Reverse: ([x], { dims }) => {
    const strides = stridesOf(x.shape);
    let offset = 0;
    for (const axis of axesOf(dims, x.shape.length)) {
      offset += (x.shape[axis] - 1) * strides[axis];
      strides[axis] = -strides[axis];
    }
    return gatherView(x, x.shape, strides, offset);
  },
  ScatterNd: ([indices, updates], { shape }) => {
    const { offsets, inner } = rowOffsets(indices, shape);
    const out = block(shape, updates.dtype);
    offsets.forEach((to, i) => {
      for (let j = 0; j < inner; j++) out.values[to + j] += updates.values[i * inner + j];
    });
    return out;
  },
  Select: ([condition, t, e]) => {
    const out = block(t.shape, t.dtype);
    const period = t.values.length / Math.max(condition.values.length, 1);
    for (let i = 0; i < out.values.length; i++) {
      out.values[i] = condition.values[Math.floor(i / period)] ? t.values[i] : e.values[i];
    }
    return out;
  },
  Slice: ([x], { begin, size }) => {
    const from = [begin].flat();
    const sizes = [size].flat();
    const shape = x.shape.map((n, i) => (sizes[i] ?? -1) < 0 ? n - (from[i] ?? 0) : sizes[i]);
    return slice(x, x.shape.map((_, i) => from[i] ?? 0), shape);
  },
  Softmax: ([x]) => softmax(x, false),
  SplitV: ([x], { numOrSizeSplits, axis }) => {
    const at = axis < 0 ? axis + x.shape.length : axis;
    const sizes: number[] = Array.isArray(numOrSizeSplits)
      ? numOrSizeSplits
      : Array(numOrSizeSplits).fill(x.shape[at] / numOrSizeSplits);
    const known = sizes.reduce((sum, n) => sum + Math.max(n, 0), 0);
    return parts(x, at, sizes.map((n) => n < 0 ? x.shape[at] - known : n));
  },
  Step: ([x], { alpha }) => map(x, (v) => v > 0 ? 1 : Number.isNaN(v) ? NaN : alpha ?? 0, x.dtype),
  Tile: ([x], { reps }) => {
    const strides = stridesOf(x.shape);
    const shape = x.shape.flatMap((n, i) => [reps[i], n]);
    const tiled = gatherView(x, shape, strides.flatMap((s) => [0, s]), 0);
    return { ...tiled, shape: x.shape.map((n, i) => n * reps[i]) };
  },
  TopK: ([x], { k }) => topK(x, k),
  Transpose: ([x], { perm }) => transpose(x, perm),
  Unpack: ([value], { axis }) => {
    const at = axis < 0 ? axis + value.shape.length : axis;
    return parts(value, at, Array(value.shape[at]).fill(1))
      .map((part) => ({ ...part, shape: part.shape.toSpliced(at, 1) }));
  },
  ZerosLike: ([x]) => block(x.shape, x.dtype),
};

/** Kernels whose output is the input's memory under another shape. */
const aliases: Record<string, (shape: number[], attributes: Attributes) => number[]> = {
  ExpandDims: (shape, { dim }) => shape.toSpliced(dim < 0 ? dim + shape.length + 1 : dim, 0, 1),
  Identity: (shape) => shape,
  Reshape: (shape, attributes) => {
    const wanted: number[] = attributes.shape;
    const known = sizeOf(wanted.filter((n) => n >= 0));
    return wanted.map((n) => n < 0 ? sizeOf(shape) / known : n);
  },
};

/** All kernels, for `tf.registerKernel`. */
export function float64Kernels(): KernelConfig[] {
  for (const [name, f] of Object.entries(unary)) rules[name] = ([x]) => map(x, f, x.dtype);
  for (const [name, f] of Object.entries(binary)) rules[name] = ([a, b]) => zip(a, b, f, a.dtype);
  for (const [name, f] of Object.entries(logical)) {
    rules[name] = ([a, b]) => zip(a, b, (x, y) => Number(f(x, y)), "bool");
  }
  for (const [name, [f, axis]] of Object.entries(reductions)) {
    rules[name] = ([x], attributes) =>
      reduce(x, attributes[axis], attributes.keepDims, f, reducedType(name, x.dtype));
  }
  return [
    ...Object.entries(rules).map(([kernelName, rule]) => configOf(kernelName, rule)),
    ...Object.entries(aliases).map(([kernelName, shapeOf]): KernelConfig => ({
      kernelName,
      backendName: "float64",
      kernelFunc: ({ inputs, attrs, backend }) => {
        const [x] = Object.values(inputs) as TensorInfo[];
        (backend as KernelBackend).incRef(x.dataId);
        return {
          dataId: x.dataId,
          dtype: x.dtype,
          shape: shapeOf(x.shape, attrs as unknown as Attributes),
        };
      },
    })),
  ];
}

/** Means are numbers; sums of booleans count. */
function reducedType(name: string, dtype: DataType): DataType {
  if (name === "Mean") return "float32";
  return name === "Sum" && dtype === "bool" ? "int32" : dtype;
}

/** Order in which the inputs of a kernel are handed to its rule, where it has names. */
const inputNames = ["condition", "params", "a", "b", "x", "value", "logits", "t", "e"]
  .concat("indices", "updates");

function configOf(kernelName: string, rule: Rule): KernelConfig {
  return {
    kernelName,
    backendName: "float64",
    kernelFunc: ({ inputs, attrs, backend }) => {
      const owner = backend as KernelBackend;
      const infos = Array.isArray(inputs)
        ? inputs as TensorInfo[]
        : Object.entries(inputs as Record<string, TensorInfo>)
          .sort(([a], [b]) => inputNames.indexOf(a) - inputNames.indexOf(b))
          .map(([, info]) => info);
      const blocks = infos.map((info): Block => ({
        values: owner.readSync(info.dataId) as Values,
        shape: info.shape,
        dtype: info.dtype,
      }));
      const result = rule(blocks, attrs as unknown as Attributes);
      const write = ({ values, shape, dtype }: Block): TensorInfo => ({
        dataId: owner.write(values as Int32Array, shape, dtype),
        shape,
        dtype,
      });
      return Array.isArray(result) ? result.map(write) : write(result);
    },
  };
}
