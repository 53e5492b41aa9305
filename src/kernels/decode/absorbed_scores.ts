/**
 * Scores of MLA's absorbed mode for one query over a cache: those of attention, and what attention
 * gives each key in the mean over its heads.
 *
 * @module
 */
import { Float, foldGrid, type Kernel, makeKernel, workgroupReduce } from "../wgsl/kernel.ts";
import { at, sumOfUnit, widthOf } from "../wgsl/layout_units.ts";
import { rounds } from "../wgsl/loops.ts";
import { type Layout, layoutUniforms, read, unitType, type Width, write } from "../wgsl/operand.ts";

/** What scores are made of. */
export interface AbsorbedScoresSpec {
  /** [1, heads · latent]: queries to compare with latents. */
  readonly qLatent: Layout;
  /** [1, heads · (nope + rope)]: queries whose last columns are compared with rope keys. */
  readonly q: Layout;
  /** [capacity, latent]: cached latents. */
  readonly latents: Layout;
  /** [capacity, rope]: cached rope keys. */
  readonly ropeKeys: Layout;
  /** i32 [1, 1]: position t of the query. */
  readonly position: Layout;
  readonly heads: number;
  /** Factor of the scores. */
  readonly scale: number;
}

/** Widths of the units in which latents and rope keys are read. */
export interface ScoreWidths {
  readonly width: Width;
  readonly ropeWidth: Width;
}

/** The widths that all matrices allow; heads begin at whole units, too. */
export function scoreWidths(
  { qLatent, q, latents, ropeKeys, heads }: Omit<AbsorbedScoresSpec, "position" | "scale">,
  ...others: readonly Layout[]
): ScoreWidths {
  return {
    width: widthOf(qLatent, latents, ...others),
    ropeWidth: q.cols / heads % 4 === 0 ? widthOf(q, ropeKeys) : 1,
  };
}

/** WGSL that declares `score`, that of `head` for `key`. */
export function absorbedScore({ width, ropeWidth }: ScoreWidths): string {
  return `  var products = ${unitType(width)}(0.0);
  for (var i = 0u; i < u.latent; i++) {
    products += ${at("q_latent", "0u", "head * u.latent + i")} * ${at("latents", "key", "i")};
  }
  var turned = ${unitType(ropeWidth)}(0.0);
  for (var i = 0u; i < u.rope; i++) {
    turned += ${at("q", "0u", "(head + 1u) * u.q_of_head - u.rope + i")} * ${
    at("rope_keys", "key", "i")
  };
  }
  let score = (${sumOfUnit(width, "products")} + ${sumOfUnit(ropeWidth, "turned")}) * u.scale;`;
}

const WORKGROUP = 64;
/** Invocations that share a head's row of scores. */
const LANES = 256;

/** scores[h, s] = scale · (q̃_h · c_s + q_rope,h · k_rope,s) of the keys s ≤ t; no others. */
export function absorbedScores(spec: AbsorbedScoresSpec & { scores: Layout }): Kernel {
  const { qLatent, q, latents, ropeKeys, position, scores, heads, scale } = spec;
  const widths = scoreWidths(spec);
  const { width, ropeWidth } = widths;
  const operands = {
    q_latent: read(qLatent, width),
    q: read(q, ropeWidth),
    latents: read(latents, width),
    rope_keys: read(ropeKeys, ropeWidth),
    position: read(position, "i32"),
    scores: write(scores),
  };
  return makeKernel({
    name: "absorbed_scores",
    shape: `${latents.rows}x${heads}x(${latents.cols}+${ropeKeys.cols})`,
    operands,
    uniforms: {
      latent: latents.cols / width,
      rope: ropeKeys.cols / ropeWidth,
      q_of_head: q.cols / heads / ropeWidth,
      scale: new Float(scale),
      ...layoutUniforms(operands),
    },
    workgroup: WORKGROUP,
    grid: [rounds(latents.rows, WORKGROUP), heads, 1],
    iterations: latents.cols / width + ropeKeys.cols / ropeWidth,
    body: `
  let key = wid.x * ${WORKGROUP}u + lane;
  let head = wid.y;
  if (key > u32(position[u.position_offset])) { return; }
${absorbedScore(widths)}
  ${at("scores", "head", "key")} = score;`,
    flops: 2 * latents.rows * heads * (latents.cols + ropeKeys.cols),
    bytes: 4 * latents.rows * (latents.cols + ropeKeys.cols + heads),
  });
}

/** Of each head's scores [heads, capacity]: their largest and Σ exp(score − largest), s ≤ t. */
export function absorbedNorms(
  { scores, position, norms }: Record<"scores" | "position" | "norms", Layout>,
): Kernel {
  const operands = {
    scores: read(scores),
    position: read(position, "i32"),
    norms: write(norms),
  };
  return makeKernel({
    name: "absorbed_norms",
    shape: `${scores.rows}x${scores.cols}`,
    operands,
    // WGSL has no infinite constants.
    uniforms: { hidden: new Float(-Infinity), ...layoutUniforms(operands) },
    workgroup: LANES,
    grid: [scores.rows, 1, 1],
    iterations: 2 * rounds(scores.cols, LANES),
    declarations: `
${workgroupReduce("largest", LANES, (a, b) => `max(${a}, ${b})`)}
${workgroupReduce("total", LANES)}`,
    body: `
  let keys = u32(position[u.position_offset]) + 1u;
  let head = wid.x;
  var most = u.hidden;
  for (var s = lane; s < keys; s += ${LANES}u) { most = max(most, ${at("scores", "head", "s")}); }
  let high = largest_reduce(lane, most);
  var sum = 0.0;
  for (var s = lane; s < keys; s += ${LANES}u) { sum += exp(${at("scores", "head", "s")} - high); }
  let all = total_reduce(lane, sum);
  if (lane == 0u) {
    ${at("norms", "head", "0u")} = high;
    ${at("norms", "head", "1u")} = all;
  }`,
    flops: 3 * scores.rows * scores.cols,
  });
}

/** shares[s] = mean over the heads of softmax(scores[h])[s], of the keys s ≤ t; no others. */
export function absorbedShares(
  { scores, position, norms, shares }: Record<
    "scores" | "position" | "norms" | "shares",
    Layout
  >,
): Kernel {
  const operands = {
    scores: read(scores),
    position: read(position, "i32"),
    norms: read(norms),
    shares: write(shares),
  };
  return makeKernel({
    name: "absorbed_shares",
    shape: `${scores.rows}x${scores.cols}`,
    operands,
    uniforms: { heads: scores.rows, ...layoutUniforms(operands) },
    workgroup: WORKGROUP,
    grid: foldGrid(rounds(scores.cols, WORKGROUP)),
    iterations: scores.rows,
    body: `
  let s = (wid.x + wid.y * groups.x) * ${WORKGROUP}u + lane;
  if (s > u32(position[u.position_offset])) { return; }
  var share = 0.0;
  for (var head = 0u; head < u.heads; head++) {
    let weight = exp(${at("scores", "head", "s")} - ${at("norms", "head", "0u")});
    share += weight / ${at("norms", "head", "1u")};
  }
  ${at("shares", "0u", "s")} = share / f32(u.heads);`,
    flops: 4 * scores.rows * scores.cols,
  });
}
