/**
 * Top-k on software adapters: one row per subgroup, its keys in registers, neighbouring keys in one
 * lane. The k-th largest is found bit by bit, by counting how many keys a candidate leaves. That
 * takes up to 32 counts, but they are plain vector instructions, while barriers, atomics and loads
 * that lanes do one by one cost hundreds of them.
 *
 * @module
 */
import { foldGrid, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { rounds } from "../wgsl/loops.ts";
import { fourScores, topKBase, type TopKSpec, visibleKeys } from "./top_k_spec.ts";

/** Most keys of a lane. */
const MOST = 128;

/** Whether rows of `capacity` keys can be held by `lanes` invocations. */
export function fitsSubgroup(capacity: number, lanes: number): boolean {
  return capacity <= MOST * lanes;
}

/** The kernel for subgroups of exactly `lanes` invocations. */
export function subgroupSelect(spec: TopKSpec, lanes: 4 | 8): Kernel {
  const { scores, capacity = scores.cols, ties = "oldest" } = spec;
  const quads = Math.ceil(capacity / (4 * lanes));
  const keys = Array.from({ length: 4 * quads }, (_, i) => `key${i}`);
  const count = (test: (key: string) => string) =>
    keys.map((key) => `count += select(0u, 1u, ${test(key)});`).join("\n");
  const loads: string[] = [];
  for (let quad = 0; quad < quads; quad++) {
    const place = `first + ${4 * quad}u`;
    loads.push(
      ...keys.slice(4 * quad, 4 * quad + 4).map((key) => `var ${key} = LOWEST;`),
      `if (${4 * quad}u < width && ${place} < n) {`,
      `let four = ordered(${fourScores(spec, "row", place)});`,
      ...keys.slice(4 * quad, 4 * quad + 4).map((key, e) =>
        `${key} = select(LOWEST, four.${"xyzw"[e]}, ${place} + ${e}u < n);`
      ),
      "}",
    );
  }
  const tied = {
    oldest: { left: "", belongs: "ties < wanted", before: "min(ties, wanted)" },
    // The first are left out, as many as are not wanted.
    newest: {
      left: "\nlet left = subgroupAdd(count) - wanted;",
      belongs: "ties >= left",
      before: "ties - min(ties, left)",
    },
  }[ties];
  return makeKernel({
    ...topKBase(spec),
    workgroup: lanes,
    grid: foldGrid(scores.rows),
    iterations: 32 + rounds(spec.indices.cols, lanes),
    declarations: `
const LOWEST = i32(-2147483647 - 1);
// Signed integers in the order of the scores, all above LOWEST.
fn ordered(x: vec4f) -> vec4i {
  let bits = bitcast<vec4i>(x);
  let magnitude = bits & vec4i(0x7fffffff);
  let flipped = bits ^ ((bits >> vec4u(31u)) & vec4i(0x7fffffff));
  return max(select(flipped, vec4i(), magnitude == vec4i()), vec4i(LOWEST + 1));
}`,
    body: `
let row = wid.x + wid.y * groups.x;
if (row >= u.rows) { return; }
let n = ${visibleKeys(spec)};
let width = (n + ${4 * lanes - 1}u) / ${4 * lanes}u * 4u;
let first = lane * width;
${loads.join("\n")}
// The largest threshold that at least k keys reach, without the sign's flip.
var least = 0u;
for (var bit = select(0u, 0x80000000u, n > u.k); bit != 0u; bit >>= 1u) {
let candidate = bitcast<i32>((least | bit) ^ 0x80000000u);
var count = 0u;
${count((key) => `${key} >= candidate`)}
let total = subgroupAdd(count);
if (total >= u.k) { least |= bit; }
if (total == u.k) { break; }
}
let threshold = bitcast<i32>(least ^ 0x80000000u);
var count = 0u;
${count((key) => `${key} > threshold`)}
let above = count;
count = 0u;
${count((key) => `${key} == threshold`)}
let total = subgroupAdd(above);
let wanted = select(0u, u.k - total, n > u.k);${tied.left}
var ties = subgroupExclusiveAdd(count);
var at = u.indices_offset + row * u.indices_stride + subgroupExclusiveAdd(above) + ${tied.before};
${
      keys.map((key, i) =>
        `if (${key} > threshold || (${key} == threshold && ${tied.belongs})) {
indices[at] = i32(first + ${i}u);
at++;
}
ties += select(0u, 1u, ${key} == threshold);`
      ).join("\n")
    }
for (var i = n + lane; i < u.k; i += ${lanes}u) {
indices[u.indices_offset + row * u.indices_stride + i] = -1;
}`,
  });
}
