/**
 * Top-k on GPUs: radix select with one workgroup per row. The keys are unsigned integers in the
 * order of the scores; four passes over 8 bits each find the k-th largest key and how many of its
 * equals belong to the selection. Then one bit per key says what is selected, and a prefix sum over
 * words of 32 bits where its index goes.
 *
 * @module
 */
import { foldGrid, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { rounds } from "../wgsl/loops.ts";
import { fourScores, type TieRule, topKBase, type TopKSpec, visibleKeys } from "./top_k_spec.ts";

/** Most keys of an invocation that are kept in registers. */
const MOST_KEPT = 32;
/** Lanes whose sums are added in one go by a prefix sum. */
const RUN = 16;

/** The sizes of a kernel. */
interface Sizes {
  /** Invocations of a row. */
  readonly threads: number;
  /** Histograms side by side, so that lanes with equal digits rarely meet. */
  readonly copies: number;
  /** Words of 32 keys. */
  readonly words: number;
  /** Which ties are selected. */
  readonly ties: TieRule;
}

function sizesFor(
  { scores, capacity = scores.cols, ties = "oldest", capabilities }: TopKSpec,
): Sizes {
  let threads = 64;
  while (threads < 256 && threads * 8 < capacity && threads * 2 <= capabilities.maxInvocations) {
    threads *= 2;
  }
  const words = Math.ceil(capacity / 32);
  let copies = capacity >= 2048 ? 8 : 2;
  const found = ties === "newest" ? 3 : 2;
  const bytes = () => 4 * (256 * copies + 2 * words + threads + threads / RUN + found);
  while (copies > 1 && bytes() > capabilities.workgroupBytes) copies /= 2;
  if (bytes() > capabilities.workgroupBytes) {
    throw new RangeError(
      `Cannot select from ${capacity} keys with ${capabilities.workgroupBytes} bytes of workgroup ` +
        "memory: shorten the sequences",
    );
  }
  return { threads, copies, words, ties };
}

/** The kernel for any device. */
export function radixSelect(spec: TopKSpec): Kernel {
  const sizes = sizesFor(spec);
  const { threads } = sizes;
  const keys = keyCode(spec, threads);
  return makeKernel({
    ...topKBase(spec),
    workgroup: threads,
    grid: foldGrid(spec.scores.rows),
    iterations: radixIterations(spec, sizes),
    declarations: declarations(sizes),
    body: `
let row = wid.x + wid.y * groups.x;
if (row >= u.rows) { return; }
let n = ${visibleKeys(spec)};
let out = u.indices_offset + row * u.indices_stride;
if (n <= u.k) {
for (var i = lane; i < u.k; i += ${threads}u) { indices[out + i] = select(-1, i32(i), i < n); }
return;
}
${keys.load}
var threshold = 0u;
var wanted = u.k;
for (var digit = 0u; digit < 4u; digit++) {
let shift = 24u - 8u * digit;
// The bits of the digits before this one.
let settled = 0xffffff00u << shift;
${keys.visit((four) => `count_digits(${four}, threshold, settled, shift, lane);`)}
workgroupBarrier();
${findDigit(sizes)}
threshold |= found_digit << shift;
wanted = found_wanted;
}
${keys.visit((four, first) => `mark(${four}, threshold, ${first});`)}
workgroupBarrier();
${placeWords(sizes)}
workgroupBarrier();
for (var key = lane; key < n; key += ${threads}u) {
let word = atomicLoad(&above[key / 32u]);
let bit = 1u << (key % 32u);
if ((word & bit) != 0u) {
indices[out + atomicLoad(&ties[key / 32u]) + countOneBits(word & (bit - 1u))] = i32(key);
}
}`,
  });
}

/** Most iterations of an invocation. */
function radixIterations(
  { scores, indices, capacity = scores.cols }: TopKSpec,
  { threads, copies, words }: Sizes,
): number {
  // A loop over the keys for each digit, and one to mark them, unless registers keep them.
  const visit = areKept(capacity, threads) ? 0 : rounds(capacity, 4 * threads);
  const sumBefore = RUN + threads / RUN + RUN;
  const digit = 1 + visit + 256 / threads * copies + sumBefore;
  const place = 2 * rounds(words, threads) + 32 * rounds(words, threads) + sumBefore;
  return Math.max(
    rounds(indices.cols, threads),
    4 * digit + visit + place + rounds(capacity, threads),
  );
}

/** Whether registers have room for the keys of an invocation. */
function areKept(capacity: number, threads: number): boolean {
  return capacity <= MOST_KEPT * threads;
}

/** How an invocation gets at its keys, four neighbours at a time; keys that don't exist are 0. */
function keyCode(spec: TopKSpec, threads: number) {
  const { scores, capacity = scores.cols } = spec;
  const step = 4 * threads;
  const load = (first: string) =>
    `ordered(${
      fourScores(spec, "row", first)
    }, vec4u(${first}) + vec4u(0u, 1u, 2u, 3u) < vec4u(n))`;
  if (!areKept(capacity, threads)) {
    return {
      load: "",
      visit: (body: (four: string, first: string) => string) =>
        `for (var first = lane * 4u; first < n; first += ${step}u) {
let four = ${load("first")};
${body("four", "first")}
}`,
    };
  }
  const starts = Array.from({ length: Math.ceil(capacity / step) }, (_, i) => i * step);
  const first = (start: number) => `(lane * 4u + ${start}u)`;
  return {
    load: starts.map((start) =>
      `var keys${start} = vec4u();
if (${first(start)} < n) { keys${start} = ${load(first(start))}; }`
    ).join("\n"),
    visit: (body: (four: string, first: string) => string) =>
      starts.map((start) => `if (${start}u < n) { ${body(`keys${start}`, first(start))} }`).join(
        "\n",
      ),
  };
}

function declarations({ threads, copies, words, ties }: Sizes): string {
  return `
// WGSL sets workgroup memory to 0 at the start.
var<workgroup> histogram: array<atomic<u32>, ${256 * copies}>;
// What is selected for sure, and later everything that is.
var<workgroup> above: array<atomic<u32>, ${words}>;
// Keys that equal the k-th, and later where a word's first index goes.
var<workgroup> ties: array<atomic<u32>, ${words}>;
var<workgroup> parts: array<u32, ${threads}>;
var<workgroup> sums: array<u32, ${threads / RUN}>;
var<workgroup> found_digit: u32;
var<workgroup> found_wanted: u32;${
    ties === "newest"
      ? "\n// Keys with this digit that are not wanted.\nvar<workgroup> found_left: u32;"
      : ""
  }

// Unsigned integers in the order of the scores, all above 0.
fn ordered(x: vec4f, exists: vec4<bool>) -> vec4u {
  let bits = bitcast<vec4u>(x);
  let flipped = select(bits | vec4u(0x80000000u), ~bits, bits >= vec4u(0x80000000u));
  let key = select(flipped, vec4u(0x80000000u), (bits & vec4u(0x7fffffffu)) == vec4u());
  return select(vec4u(), max(key, vec4u(1u)), exists);
}

fn count_digit(key: u32, threshold: u32, settled: u32, shift: u32, lane: u32) {
  if (key != 0u && ((key ^ threshold) & settled) == 0u) {
    atomicAdd(&histogram[((key >> shift) & 255u) * ${copies}u + lane % ${copies}u], 1u);
  }
}

fn count_digits(keys: vec4u, threshold: u32, settled: u32, shift: u32, lane: u32) {
  count_digit(keys.x, threshold, settled, shift, lane);
  count_digit(keys.y, threshold, settled, shift, lane);
  count_digit(keys.z, threshold, settled, shift, lane);
  count_digit(keys.w, threshold, settled, shift, lane);
}

// The count of a digit, which is then 0 again.
fn take(digit: u32) -> u32 {
  var count = 0u;
  for (var i = 0u; i < ${copies}u; i++) {
    // Neighbours begin at different copies: these lie in different memory banks.
    let at = digit * ${copies}u + (i + digit) % ${copies}u;
    count += atomicLoad(&histogram[at]);
    atomicStore(&histogram[at], 0u);
  }
  return count;
}

fn mark(keys: vec4u, threshold: u32, first: u32) {
  let bits = vec4u(1u, 2u, 4u, 8u) << vec4u(first % 32u);
  let over = select(vec4u(), bits, keys > vec4u(threshold));
  let equal = select(vec4u(), bits, keys == vec4u(threshold));
  let over_bits = over.x | over.y | over.z | over.w;
  let equal_bits = equal.x | equal.y | equal.z | equal.w;
  if (over_bits != 0u) { atomicOr(&above[first / 32u], over_bits); }
  if (equal_bits != 0u) { atomicOr(&ties[first / 32u], equal_bits); }
}

// The sum of the values of the lanes before.
fn sum_before(lane: u32, value: u32) -> u32 {
  parts[lane] = value;
  workgroupBarrier();
  if (lane < ${threads / RUN}u) {
    var sum = 0u;
    for (var i = 0u; i < ${RUN}u; i++) { sum += parts[lane * ${RUN}u + (i + lane) % ${RUN}u]; }
    sums[lane] = sum;
  }
  workgroupBarrier();
  let run = lane / ${RUN}u;
  var result = 0u;
  for (var i = 0u; i < run; i++) { result += sums[i]; }
  for (var i = run * ${RUN}u; i < lane; i++) { result += parts[i]; }
  return result;
}`;
}

/** The digit of the k-th largest key, and how many keys with this digit are wanted. */
function findDigit({ threads, ties }: Sizes): string {
  const digits = Array.from(
    { length: 256 / threads },
    (_, i) => `(255u - lane * ${256 / threads}u - ${i}u)`,
  );
  const counts = digits.map((_, i) => `count${i}`);
  return `{
${digits.map((digit, i) => `let count${i} = take(${digit});`).join("\n")}
var passed = sum_before(lane, ${counts.join(" + ")});
${
    digits.map((digit, i) =>
      `if (passed < wanted && wanted <= passed + count${i}) {
found_digit = ${digit};
found_wanted = wanted - passed;${
        ties === "newest" ? `\nfound_left = passed + count${i} - wanted;` : ""
      }
}
passed += count${i};`
    ).join("\n")
  }
}
workgroupBarrier();`;
}

/**
 * Adds the ties that belong to it to what is selected, the first `wanted` or all but the first
 * `found_left`, and works out where each word's indices go. Both counts fit into one number: fewer
 * than 2¹⁶ keys come before a key, and fewer are above the k-th.
 */
function placeWords({ threads, words, ties }: Sizes): string {
  const own = Math.ceil(words / threads);
  const each = (body: string) =>
    `for (var word = lane * ${own}u; word < min(lane * ${own}u + ${own}u, ${words}u); word++) {
let over = countOneBits(atomicLoad(&above[word]));
var tied = atomicLoad(&ties[word]);
${body}
}`;
  const taken = {
    oldest: {
      before: "min(ties_before, wanted)",
      own: `let room = wanted - min(ties_before, wanted);
over_before += over;
ties_before += count;
if (room == 0u) { tied = 0u; }
else { for (var i = room; i < count; i++) { tied &= ~(1u << firstLeadingBit(tied)); } }`,
    },
    newest: {
      before: "ties_before - min(ties_before, found_left)",
      own: `let left = min(found_left - min(ties_before, found_left), count);
over_before += over;
ties_before += count;
for (var i = 0u; i < left; i++) { tied &= tied - 1u; }`,
    },
  }[ties];
  return `var counts = 0u;
${each("counts += over << 16u | countOneBits(tied);")}
let passed = sum_before(lane, counts);
var over_before = passed >> 16u;
var ties_before = passed & 0xffffu;
${
    each(`let place = over_before + ${taken.before};
let count = countOneBits(tied);
${taken.own}
atomicOr(&above[word], tied);
atomicStore(&ties[word], place);`)
  }`;
}
