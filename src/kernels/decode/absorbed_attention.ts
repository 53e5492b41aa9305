/**
 * Attention of one query of MLA's absorbed mode over a cache of latents (FlashMLA's decoding): each
 * workgroup takes a head and a part of the keys, with a softmax of its own; then the parts are
 * merged in order, so that results are the same in every run.
 *
 * @module
 */
import { spread } from "../wgsl/elementwise.ts";
import { Float, type Kernel, makeKernel, workgroupReduce } from "../wgsl/kernel.ts";
import { absorbedScore, scoreWidths } from "./absorbed_scores.ts";
import { at, widthOf } from "../wgsl/layout_units.ts";
import { rounds } from "../wgsl/loops.ts";
import { type Layout, layoutUniforms, read, unitType, write } from "../wgsl/operand.ts";

/** Keys of a part, and invocations of its workgroup. */
const PART = 64;

/** What both kernels are made for. */
export interface AbsorbedAttentionSpec {
  /** [1, heads · latent]: queries to compare with latents. */
  readonly qLatent: Layout;
  /** [1, heads · (nope + rope)]: queries whose last columns are compared with rope keys. */
  readonly q: Layout;
  /** [capacity, latent]: cached latents, keys and values of all heads. */
  readonly latents: Layout;
  /** [capacity, rope]: cached rope keys. */
  readonly ropeKeys: Layout;
  /** i32 [1, 1]: position t of the query. */
  readonly position: Layout;
  /** i32 [1, k]: positions to attend to, min(k, t + 1) of them first; null: those up to t. */
  readonly indices: Layout | null;
  /** [1, heads · latent]: the result. */
  readonly y: Layout;
  readonly heads: number;
  /** Factor of the scores. */
  readonly scale: number;
  /** Without indices: the last keys that are attended to; default all. */
  readonly window?: number;
}

/** Parts of the keys, at most. */
export function attentionParts(spec: AbsorbedAttentionSpec): number {
  return Math.ceil(mostKeys(spec) / PART);
}

function mostKeys({ latents, indices, window }: AbsorbedAttentionSpec): number {
  return indices ? indices.cols : Math.min(latents.rows, window ?? latents.rows);
}

/** WGSL that declares `keys`, the number of keys attended to. */
const COUNT_KEYS = `let visible = u32(position[u.position_offset]) + 1u;
  let keys = min(visible, u.most);`;

/**
 * Of each part and head: softmax-weighted sum of latents, not yet divided, into row part · heads +
 * head of `sums` [parts · heads, latent], and the largest score and the sum of exponentials into the
 * same row of `stats` [parts · heads, 2]. Parts without keys are left as they are.
 */
export function absorbedParts(
  spec: AbsorbedAttentionSpec & { sums: Layout; stats: Layout },
): Kernel {
  const { qLatent, q, latents, ropeKeys, position, indices, sums, stats, heads, scale } = spec;
  const widths = scoreWidths(spec, sums);
  const { width, ropeWidth } = widths;
  const type = unitType(width);
  const key = indices
    ? `u32(${at("indices", "0u", "min(first + lane, keys - 1u)")})`
    : "visible - keys + min(first + lane, keys - 1u)";
  const operands = {
    q_latent: read(qLatent, width),
    q: read(q, ropeWidth),
    latents: read(latents, width),
    rope_keys: read(ropeKeys, ropeWidth),
    position: read(position, "i32"),
    ...indices ? { indices: read(indices, "i32") } : {},
    sums: write(sums, width),
    stats: write(stats),
  };
  return makeKernel({
    name: indices ? "absorbed_attention_selected" : "absorbed_attention",
    shape: `${mostKeys(spec)} of ${latents.rows}x${heads}x(${latents.cols}+${ropeKeys.cols})`,
    operands,
    uniforms: {
      most: mostKeys(spec),
      heads,
      latent: latents.cols / width,
      rope: ropeKeys.cols / ropeWidth,
      q_of_head: q.cols / heads / ropeWidth,
      scale: new Float(scale),
      // WGSL has no infinite constants.
      hidden: new Float(-Infinity),
      ...layoutUniforms(operands),
    },
    workgroup: PART,
    grid: [attentionParts(spec), heads, 1],
    iterations: latents.cols / width + ropeKeys.cols / ropeWidth +
      rounds(latents.cols / width, PART) * (1 + PART),
    declarations: `
var<workgroup> chosen: array<u32, ${PART}>;
var<workgroup> weights: array<f32, ${PART}>;
${workgroupReduce("largest", PART, (a, b) => `max(${a}, ${b})`)}
${workgroupReduce("total", PART)}`,
    body: `
  ${COUNT_KEYS}
  let first = wid.x * ${PART}u;
  if (first >= keys) { return; }
  let head = wid.y;
  let key = ${key};
${absorbedScore(widths)}
  let live = first + lane < keys;
  let high = largest_reduce(lane, select(u.hidden, score, live));
  let weight = select(0.0, exp(score - high), live);
  chosen[lane] = key;
  weights[lane] = weight;
  let sum = total_reduce(lane, weight);
  let row = wid.x * u.heads + head;
  if (lane == 0u) {
    ${at("stats", "row", "0u")} = high;
    ${at("stats", "row", "1u")} = sum;
  }
  let count = min(keys - first, ${PART}u);
  for (var j = lane; j < u.latent; j += ${PART}u) {
    var value = ${type}(0.0);
    for (var i = 0u; i < count; i++) { value += weights[i] * ${at("latents", "chosen[i]", "j")}; }
    ${at("sums", "row", "j")} = value;
  }`,
    flops: 2 * mostKeys(spec) * heads * (2 * latents.cols + ropeKeys.cols),
    bytes: 4 * mostKeys(spec) * (latents.cols + ropeKeys.cols),
  });
}

/** Merges the parts of {@linkcode absorbedParts}. */
export function absorbedMerge(
  spec: AbsorbedAttentionSpec & { sums: Layout; stats: Layout },
): Kernel {
  const { latents, position, sums, stats, y, heads } = spec;
  const width = widthOf(sums, y);
  const type = unitType(width);
  const over = spread(1, y.cols / width);
  const operands = {
    sums: read(sums, width),
    stats: read(stats),
    position: read(position, "i32"),
    y: write(y, width),
  };
  return makeKernel({
    name: "absorbed_attention_merge",
    shape: `${attentionParts(spec)}x${heads}x${latents.cols}`,
    operands,
    uniforms: {
      ...over.uniforms,
      most: mostKeys(spec),
      heads,
      latent: latents.cols / width,
      ...layoutUniforms(operands),
    },
    workgroup: over.workgroup,
    grid: over.grid,
    iterations: 2 * attentionParts(spec),
    body: `${over.prelude}
  ${COUNT_KEYS}
  let parts = (keys + ${PART - 1}u) / ${PART}u;
  let head = col / u.latent;
  let j = col % u.latent;
  var high = ${at("stats", "head", "0u")};
  for (var part = 1u; part < parts; part++) {
    high = max(high, ${at("stats", "(part * u.heads + head)", "0u")});
  }
  var sum = 0.0;
  var value = ${type}(0.0);
  for (var part = 0u; part < parts; part++) {
    let partial = part * u.heads + head;
    let share = exp(${at("stats", "partial", "0u")} - high);
    sum += share * ${at("stats", "partial", "1u")};
    value += share * ${at("sums", "partial", "j")};
  }
  ${at("y", "row", "col")} = value / sum;`,
    flops: 4 * attentionParts(spec) * y.cols,
    bytes: 4 * attentionParts(spec) * (y.cols + 2 * heads) + 4 * y.cols,
  });
}
