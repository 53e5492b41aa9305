/**
 * The selection of MoSA: each head picks the tokens of a sequence that its router scores highest.
 *
 * @module
 */
import { foldGrid, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { rounds } from "../wgsl/loops.ts";
import { type Layout, layoutUniforms, read, write } from "../wgsl/operand.ts";

/** Declares `sort_key`, an exact total order of scores, for an operand `router` of u32. */
export const SORT_KEY = `// Orders as the score does, with -0 = +0.
fn sort_key(row: u32, head: u32) -> u32 {
  let raw = router[u.router_offset + row * u.router_stride + head];
  let bits = select(raw, 0u, raw == 0x80000000u);
  return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}`;

/** What {@linkcode mosaSelection} reads and writes. */
export interface MosaSelectionArgs {
  /** [batch · seqLen, heads]. */
  router: Layout;
  /** [batch · picks, heads] i32: position of the j-th pick of a head, ascending in j. */
  indices: Layout;
  /** [batch · seqLen, heads] i32: which pick of the head a token is, or -1. */
  slots: Layout;
  seqLen: number;
  /** Tokens that a head picks, 1 … seqLen. */
  picks: number;
  software: boolean;
}

/** Most iterations of an invocation. */
function selectionIterations(seqLen: number, lanes: number): number {
  const sumBefore = Math.log2(lanes);
  // Bins are cleared, added up and walked along.
  const digit = 1 + rounds(seqLen, lanes) + 3 * rounds(256, lanes) + sumBefore;
  return 4 * digit + sumBefore + 2 * rounds(seqLen, lanes);
}

/**
 * Exact radix select, one workgroup per sequence and head: four passes over 8 bits each of the
 * scores as ordered u32 find the lowest picked score and how many tokens with just this score are
 * picked (the first ones); then every invocation writes the picks of its run of tokens. Integer
 * atomics count, so reruns are equal. O(seqLen) per head.
 */
export function mosaSelection(args: MosaSelectionArgs): Kernel {
  const { router, indices, slots, seqLen, picks, software } = args;
  const lanes = software ? 16 : 256;
  const operands = {
    router: read(router, "u32"),
    indices: write(indices, "i32"),
    slots: write(slots, "i32"),
  };
  const count = router.rows / seqLen * router.cols;
  return makeKernel({
    name: "mosa_selection",
    shape: `${picks} of ${router.rows}x${router.cols}`,
    operands,
    uniforms: {
      count,
      heads: router.cols,
      seq_len: seqLen,
      picks,
      ...layoutUniforms(operands),
    },
    workgroup: lanes,
    grid: foldGrid(count),
    iterations: selectionIterations(seqLen, lanes),
    declarations: `
var<workgroup> bins: array<atomic<u32>, 256>;
var<workgroup> sums: array<vec2u, ${lanes}>;
var<workgroup> chosen: vec2u;
// Sum of the values of the lanes before this one.
fn sum_before(lane: u32, value: vec2u) -> vec2u {
  sums[lane] = value;
  workgroupBarrier();
  for (var step = 1u; step < ${lanes}u; step <<= 1u) {
    var other = vec2u();
    if (lane >= step) { other = sums[lane - step]; }
    workgroupBarrier();
    sums[lane] += other;
    workgroupBarrier();
  }
  return sums[lane] - value;
}
${SORT_KEY}`,
    body: `
let task = wid.x + wid.y * groups.x;
if (task >= u.count) { return; }
let sequence = task / u.heads;
let head = task % u.heads;
let row = sequence * u.seq_len;
var prefix = 0u;
// Picks among the keys that begin with prefix; all larger keys are picked.
var need = u.picks;
for (var shift = 24i; shift >= 0i; shift -= 8i) {
  for (var bin = lane; bin < 256u; bin += ${lanes}u) { atomicStore(&bins[bin], 0u); }
  workgroupBarrier();
  for (var t = lane; t < u.seq_len; t += ${lanes}u) {
    let digits = sort_key(row + t, head) >> u32(shift);
    if (shift == 24i || (digits >> 8u) == prefix) { atomicAdd(&bins[digits & 255u], 1u); }
  }
  workgroupBarrier();
  let top = 255u - lane * ${256 / lanes}u;
  var own = 0u;
  for (var i = 0u; i < ${256 / lanes}u; i++) { own += atomicLoad(&bins[top - i]); }
  let above = sum_before(lane, vec2u(own, 0u)).x;
  if (above < need && need <= above + own) {
    var bin = top;
    var left = need - above;
    for (var n = atomicLoad(&bins[bin]); left > n; n = atomicLoad(&bins[bin])) {
      left -= n;
      bin--;
    }
    chosen = vec2u(bin, left);
  }
  workgroupBarrier();
  prefix = (prefix << 8u) | chosen.x;
  need = chosen.y;
}
let run = (u.seq_len + ${lanes - 1}u) / ${lanes}u;
let begin = min(lane * run, u.seq_len);
let end = min(begin + run, u.seq_len);
var counts = vec2u();
for (var t = begin; t < end; t++) {
  let key = sort_key(row + t, head);
  counts += vec2u(u32(key > prefix), u32(key == prefix));
}
let before = sum_before(lane, counts);
var equal = before.y;
var slot = before.x + min(equal, need);
for (var t = begin; t < end; t++) {
  let key = sort_key(row + t, head);
  let picked = key > prefix || (key == prefix && equal < need);
  equal += u32(key == prefix);
  slots[u.slots_offset + (row + t) * u.slots_stride + head] = select(-1i, i32(slot), picked);
  if (picked) {
    let at = u.indices_offset + (sequence * u.picks + slot) * u.indices_stride + head;
    indices[at] = i32(t);
    slot++;
  }
}`,
  });
}
