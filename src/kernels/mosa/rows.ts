/**
 * MoSA between tokens and picks: every head's picked rows gathered into a matrix of their own,
 * what was computed from them put back, and the gradient of the router.
 *
 * A token is picked at most once by a head, so that putting back is reading: no two picks meet.
 *
 * @module
 */
import { spread } from "../wgsl/elementwise.ts";
import { bytesOf, foldGrid, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at, sumOfUnit, widthOf } from "../wgsl/layout_units.ts";
import {
  type Layout,
  layoutUniforms,
  type Operand,
  read,
  unitType,
  type Width,
  write,
} from "../wgsl/operand.ts";
import { type Sink, sinkMatrices, sinkParts } from "../wgsl/sink.ts";
import { sigmoidFunction } from "../token/swiglu.ts";

/** Rows per sequence: of matrices with a row for each token, and with one for each pick. */
export interface MosaExtent {
  readonly seqLen: number;
  readonly picks: number;
}

/** Units in which heads of `cols / heads` columns can be read whole. */
function headUnits(heads: number, ...matrices: readonly Layout[]): Width {
  return matrices[0].cols / heads % 4 === 0 ? widthOf(...matrices) : 1;
}

/**
 * Columns of head h of out[b · picks + j] = those of x[b · seqLen + indices[b · picks + j, h]],
 * times sigmoid(router) there if `router` is given. x [batch · seqLen, heads · width],
 * out [batch · picks, heads · width].
 */
export function mosaGather(
  { x, indices, router, out }: { x: Layout; indices: Layout; router: Layout | null; out: Layout },
  { seqLen, picks }: MosaExtent,
): Kernel {
  const heads = indices.cols;
  const width = headUnits(heads, x, out);
  const over = spread(out.rows, out.cols / width);
  const factor: Record<string, Operand> = router ? { router: read(router) } : {};
  const [own, places, gathered] = [read(x, width), read(indices, "i32"), write(out, width)];
  return makeKernel({
    name: router ? "mosa_gather_weighted" : "mosa_gather",
    shape: `${out.rows}x${out.cols}`,
    operands: { x: own, indices: places, ...factor, out: gathered },
    uniforms: {
      ...over.uniforms,
      seq_len: seqLen,
      picks,
      ...layoutUniforms({ x: own, out: gathered, indices: places, ...factor }),
    },
    workgroup: over.workgroup,
    grid: over.grid,
    declarations: sigmoidFunction(1),
    body: `${over.prelude}
  let head = col / ${out.cols / heads / width}u;
  let token = row / u.picks * u.seq_len + u32(${at("indices", "row", "head")});
  let factor = ${router ? `sigmoid(${at("router", "token", "head")})` : "1.0"};
  ${at("out", "row", "col")} = factor * ${at("x", "token", "col")};`,
    bytes: 2 * bytesOf(out) + bytesOf(indices),
  });
}

/**
 * The reverse of {@linkcode mosaGather}: columns of head h of out[b · seqLen + t] = those of
 * x[b · picks + slots[b · seqLen + t, h]], times sigmoid(router) if `router` is given; 0 where
 * the slot is -1.
 */
export function mosaScatter(
  { x, slots, router, out }: { x: Layout; slots: Layout; router: Layout | null; out: Sink },
  { seqLen, picks }: MosaExtent,
): Kernel {
  const heads = slots.cols;
  const { rows, cols } = out.into;
  const width = headUnits(heads, x, ...sinkMatrices(out));
  const type = unitType(width);
  const over = spread(rows, cols / width);
  const sink = sinkParts("out", out, width);
  const operands = {
    x: read(x, width),
    slots: read(slots, "i32"),
    ...router ? { router: read(router) } : {},
    ...sink.operands,
  };
  return makeKernel({
    name: router ? "mosa_scatter_weighted" : "mosa_scatter",
    shape: `${rows}x${cols}`,
    operands,
    uniforms: { ...over.uniforms, seq_len: seqLen, picks, ...layoutUniforms(operands) },
    workgroup: over.workgroup,
    grid: over.grid,
    declarations: sigmoidFunction(1),
    body: `${over.prelude}
  let head = col / ${cols / heads / width}u;
  let slot = ${at("slots", "row", "head")};
  var value = ${type}(0.0);
  if (slot >= 0i) {
    let pick = row / u.seq_len * u.picks + u32(slot);
    value = ${router ? `sigmoid(${at("router", "row", "head")}) * ` : ""}${at("x", "pick", "col")};
  }
  ${sink.store("row", "col", "value")}`,
  });
}

/** Columns of head h of out[t] = those of x[t], times sigmoid(router[t, h]). */
export function mosaGate(
  { x, router, out }: { x: Layout; router: Layout; out: Layout },
): Kernel {
  const { rows, cols } = out;
  const width = headUnits(router.cols, x, out);
  const over = spread(rows, cols / width);
  const operands = { x: read(x, width), router: read(router), out: write(out, width) };
  return makeKernel({
    name: "mosa_gate",
    shape: `${rows}x${cols}`,
    operands,
    uniforms: { ...over.uniforms, ...layoutUniforms(operands) },
    workgroup: over.workgroup,
    grid: over.grid,
    declarations: sigmoidFunction(1),
    body: `${over.prelude}
  let factor = sigmoid(${at("router", "row", `(col / ${cols / router.cols / width}u)`)});
  ${at("out", "row", "col")} = factor * ${at("x", "row", "col")};`,
  });
}

/**
 * Gradient of the router's logits. As o = sigmoid(z) · a, with a the attention among the picks,
 * dz = sigmoid(z) (1 - sigmoid(z)) a·do = sigmoid(-z) o·do, which is 0 for a token that was not
 * picked. o and gradO [rows, heads · width].
 */
export function mosaRouterGradient(
  { o, gradO, router, out }: { o: Layout; gradO: Layout; router: Layout; out: Sink },
): Kernel {
  const { rows, cols: heads } = router;
  const width = headUnits(heads, o, gradO);
  const type = unitType(width);
  const sink = sinkParts("out", out, 1);
  const operands = {
    o: read(o, width),
    grad_o: read(gradO, width),
    router: read(router),
    ...sink.operands,
  };
  return makeKernel({
    name: "mosa_router_gradient",
    shape: `${rows}x${heads}`,
    operands,
    uniforms: { count: rows * heads, heads, ...layoutUniforms(operands) },
    workgroup: 64,
    grid: foldGrid(Math.ceil(rows * heads / 64)),
    iterations: o.cols / heads / width,
    declarations: sigmoidFunction(1),
    body: `
let i = (wid.x + wid.y * groups.x) * 64u + lane;
if (i >= u.count) { return; }
let row = i / u.heads;
let head = i % u.heads;
var sum = ${type}(0.0);
for (var c = 0u; c < ${o.cols / heads / width}u; c++) {
  let col = head * ${o.cols / heads / width}u + c;
  sum += ${at("o", "row", "col")} * ${at("grad_o", "row", "col")};
}
let value = sigmoid(-${at("router", "row", "head")}) * ${sumOfUnit(width, "sum")};
${sink.store("row", "head", "value")}`,
    flops: 2 * rows * o.cols,
  });
}
