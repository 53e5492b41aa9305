/**
 * Rotary position embedding (Su et al., 2021, arXiv:2104.09864).
 *
 * Angles are exact at any position: each pair's frequency is a 64-bit binary fraction of a turn per
 * position, made on the host; position · frequency modulo one turn is integer arithmetic, and only
 * the rest within ±π/4 goes through (polynomial) sine and cosine. Errors are below 2e-7 for
 * positions up to 2^24, on any GPU; f32 angles would be off by 4e-3 at position 65 535.
 *
 * @module
 */
import { spread } from "../wgsl/elementwise.ts";
import { Float, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at, widthOf } from "../wgsl/layout_units.ts";
import {
  type Layout,
  layoutUniforms,
  type Operand,
  read,
  update,
  type Width,
} from "../wgsl/operand.ts";
import { type Sink, sinkMatrices, sinkParts } from "../wgsl/sink.ts";

/** Which columns form a pair: (2i, 2i + 1) or (i, i + dims / 2). */
export type RopeLayout = "interleaved" | "halfSplit";

/** What is rotated and by how much. */
export interface RopeSpec {
  /** Row r is at position r % seqLen. */
  readonly seqLen: number;
  /** Heads side by side in a row. */
  readonly heads: number;
  /** Columns per head. */
  readonly headDim: number;
  /** First rotated column of a head. */
  readonly start: number;
  /** Rotated columns of a head; even. */
  readonly dims: number;
  /** Which columns form a pair. */
  readonly layout: RopeLayout;
  /** Pair i turns by position · theta^(−2i / dims) radians. */
  readonly theta: number;
}

/** Arguments of both kernels besides the matrices. */
export interface RopeArgs extends RopeSpec {
  /** Added to the row number before the position is taken (for a part of the rows). */
  firstRow: number;
  /** Rotate backwards: the gradient. */
  inverse: boolean;
  software: boolean;
  /** i32 [rows, 1]: where each row is, whatever `seqLen` and `firstRow` say. */
  positions?: Layout;
}

/**
 * y = x with the chosen columns rotated. x, y [rows, heads · headDim].
 */
export function ropeKernel(args: RopeArgs & { x: Layout; y: Sink }): Kernel {
  const { x, headDim, positions } = args;
  const width = ropeWidth(args, x, ...sinkMatrices(args.y));
  const y = sinkParts("y", args.y, width);
  const place: Record<string, Operand> = positions ? { positions: read(positions, "i32") } : {};
  const rotated = args.dims / width;
  const pairUnits = pairUnitsOf(args, width);
  return rotationKernel(args, width, {
    name: "rope",
    operands: { x: read(x, width), ...place, ...y.operands },
    uniforms: { ...layoutUniforms({ ...y.operands, ...place }), pair_units: pairUnits, rotated },
    units: pairUnits + headDim / width - rotated,
    store: y.store,
    // The columns that are not rotated come after the pairs.
    other: `
  if (col >= u.pair_units) {
    var c = col - u.pair_units;
    if (c >= u.start) { c += u.rotated; }
    for (; head < u.heads; head += u.splits) {
      let i = head * u.head_dim + c;
      ${y.store("token", "i", at("x", "token", "i"))}
    }
    return;
  }`,
  });
}

/** Rotates the chosen columns of x where they are. */
export function ropeInPlace(args: RopeArgs & { x: Layout }): Kernel {
  const { x } = args;
  const width = ropeWidth(args, x);
  return rotationKernel(args, width, {
    name: "rope_in_place",
    operands: { x: update(x, width) },
    uniforms: {},
    units: pairUnitsOf(args, width),
    store: (row, col, value) => `${at("x", row, col)} = ${value};`,
    other: "",
    bytes: 8 * x.rows * args.heads * args.dims,
  });
}

/** Frequencies as 64-bit fractions of a turn, high and low word of each pair. */
function turnsPerPosition(dims: number, theta: number): Uint32Array {
  const words = new Uint32Array(Math.ceil(dims / 4) * 4);
  for (let i = 0; i < dims / 2; i++) {
    const scaled = theta ** (-2 * i / dims) / (2 * Math.PI) * 2 ** 32;
    words[2 * i] = Math.floor(scaled);
    words[2 * i + 1] = Math.floor((scaled - Math.floor(scaled)) * 2 ** 32);
  }
  return words;
}

function ropeWidth(spec: RopeSpec, ...matrices: Layout[]): Width {
  const whole = spec.layout === "interleaved" ? spec.dims : spec.dims / 2;
  const aligned = [spec.headDim, spec.start, whole].every((n) => n % 4 === 0);
  return aligned ? widthOf(...matrices) : 1;
}

/** Units that hold the first element of a pair. */
function pairUnitsOf(spec: RopeSpec, width: Width): number {
  return spec.layout === "interleaved" && width === 4 ? spec.dims / 4 : spec.dims / 2 / width;
}

const ANGLE = `
// Cosine and sine of position times the frequency (high and low word), in units of 2^-32 turns.
fn turned(words: vec2u, position: u32) -> vec2f {
  let p = vec2u(position & 0xffffu, position >> 16u);
  let low = vec2u(words.y & 0xffffu, words.y >> 16u);
  let turn = position * words.x + p.y * low.y + ((p.x * low.y) >> 16u) + ((p.y * low.x) >> 16u);
  let quarter = (turn + 0x20000000u) >> 30u;
  let x = f32(bitcast<i32>(turn - (quarter << 30u))) * ${2 * Math.PI / 2 ** 32};
  let z = x * x;
  // Minimax polynomials on [-pi/4, pi/4] of the Cephes library (sinf, cosf).
  let sine = x + x * z * (-1.6666654611e-1 + z * (8.3321608736e-3 - z * 1.9515295891e-4));
  let cosine = 1.0 - 0.5 * z +
    z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5));
  let turn_of = select(vec2f(cosine, sine), vec2f(-sine, cosine), (quarter & 1u) == 1u);
  return select(turn_of, -turn_of, (quarter & 2u) == 2u);
}`;

interface Variant {
  name: string;
  operands: Record<string, Operand>;
  uniforms: Record<string, number>;
  /** Invocations per row and share of the heads. */
  units: number;
  store(row: string, col: string, value: string): string;
  other: string;
  bytes?: number;
}

function rotationKernel(args: RopeArgs & { x: Layout }, width: Width, variant: Variant): Kernel {
  const { x, heads } = args;
  const turns = turnsPerPosition(args.dims, args.theta);
  // Sines are dear without a GPU: there one invocation serves all heads.
  const splits = args.software ? 1 : heads;
  const over = spread(x.rows * splits, variant.units);
  const kernel = makeKernel({
    name: variant.name,
    shape: `${x.rows}x${x.cols}`,
    operands: variant.operands,
    uniforms: {
      ...over.uniforms,
      ...layoutUniforms({ x: variant.operands.x }),
      ...variant.uniforms,
      seq_len: args.seqLen,
      first_row: args.firstRow,
      heads,
      head_dim: args.headDim / width,
      start: args.start / width,
      ...args.layout === "halfSplit" ? { half: args.dims / 2 / width } : {},
      splits,
      direction: new Float(args.inverse ? -1 : 1),
    },
    workgroup: over.workgroup,
    grid: over.grid,
    iterations: heads / splits,
    declarations: ANGLE,
    body: `${over.prelude}
  let token = row / u.splits;
  var head = row % u.splits;${variant.other}
  let position = ${
      args.positions
        ? `u32(${at("positions", "token", "0u")})`
        : "(u.first_row + token) % u.seq_len"
    };
  ${rotation(args, width)}
  for (; head < u.heads; head += u.splits) {
    ${rotate(args, width, variant.store)}
  }`,
    flops: 3 * x.rows * heads * args.dims,
    bytes: variant.bytes,
  });
  return withTable(kernel, turns);
}

/** WGSL that declares the cosines `c` and sines `s` of the unit's pairs. */
function rotation(spec: RopeSpec, width: Width): string {
  if (width === 1) {
    return `let words = u.turns[col >> 1u];
  let a = turned(select(words.xy, words.zw, (col & 1u) == 1u), position);
  let c = a.x;
  let s = a.y * u.direction;`;
  }
  if (spec.layout === "interleaved") {
    return `let words = u.turns[col];
  let a = turned(words.xy, position);
  let b = turned(words.zw, position);
  let c = vec4f(a.x, a.x, b.x, b.x);
  let s = vec4f(-a.y, a.y, -b.y, b.y) * u.direction;`;
  }
  const angles = [0, 1, 2, 3].map((i) =>
    `let a${i} = turned(u.turns[2u * col + ${i >> 1}u].${i & 1 ? "zw" : "xy"}, position);`
  );
  return `${angles.join("\n  ")}
  let c = vec4f(a0.x, a1.x, a2.x, a3.x);
  let s = vec4f(a0.y, a1.y, a2.y, a3.y) * u.direction;`;
}

/** WGSL that rotates the pairs of one head. */
function rotate(spec: RopeSpec, width: Width, store: Variant["store"]): string {
  const first = "head * u.head_dim + u.start + col";
  if (width === 4 && spec.layout === "interleaved") {
    return `let i = ${first};
    let v = ${at("x", "token", "i")};
    ${store("token", "i", "(v * c + v.yxwz * s)")}`;
  }
  const second = spec.layout === "interleaved" ? "1u" : "u.half";
  return `let i = ${first}${spec.layout === "interleaved" ? " + col" : ""};
    let v = ${at("x", "token", "i")};
    let w = ${at("x", "token", `i + ${second}`)};
    ${store("token", "i", "(v * c - w * s)")}
    ${store("token", `i + ${second}`, "(w * c + v * s)")}`;
}

/** Puts a table, which {@linkcode makeKernel} has no notion of, before the other uniforms. */
function withTable(kernel: Kernel, table: Uint32Array): Kernel {
  const uniforms = new Uint32Array(table.length + kernel.uniforms.length);
  uniforms.set(table);
  uniforms.set(kernel.uniforms, table.length);
  const member = `struct Uniforms {\n  turns: array<vec4u, ${table.length / 4}>,`;
  return { ...kernel, code: kernel.code.replace("struct Uniforms {", member), uniforms };
}
