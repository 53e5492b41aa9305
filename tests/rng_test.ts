import assert from "node:assert/strict";
import { philox4x32, Rng } from "../src/rng.ts";

const seed = Math.floor(Math.random() * 2 ** 50);

Deno.test("Philox4x32-10 gives the known answers of Random123", () => {
  // counter, key, result: kat_vectors of Random123 1.14.
  const vectors = [
    "00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    "ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd",
    "243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1",
  ];
  const out = new Uint32Array(4);
  for (const vector of vectors) {
    const [c0, c1, c2, c3, k0, k1, ...expected] = vector.split(" ").map((w) => parseInt(w, 16));
    philox4x32(c0, c1, c2, c3, k0, k1, out);
    assert.deepEqual([...out], expected);
  }
});

Deno.test("a stream can be entered anywhere", () => {
  const rng = new Rng(seed, "stream");
  const words = Array.from({ length: 40 }, () => rng.uint32());
  assert.equal(rng.position, 40);
  for (let p = 0; p < 40; p++) {
    assert.equal(new Rng(seed, "stream", p).uint32(), words[p], `seed ${seed}, position ${p}`);
  }
  // Beyond 2³⁴ words the second counter word is in use.
  const far = 2 ** 36 + 4 * Math.floor(Math.random() * 2 ** 20);
  const distant = new Rng(seed, "stream", far);
  const next = Array.from({ length: 4 }, () => distant.uint32());
  assert.equal(new Rng(seed, "stream", far + 3).uint32(), next[3]);
  const wrapped = new Rng(seed, "stream", far % 2 ** 34);
  assert.notDeepEqual(next, next.map(() => wrapped.uint32()));
});

Deno.test("seeds and streams give different numbers", () => {
  const first = [
    new Rng(seed, "a"),
    new Rng(seed, "b"),
    new Rng(seed + 1, "a"),
    new Rng(seed + 2 ** 32, "a"),
    new Rng(seed, 0),
    new Rng(seed, 1),
    new Rng(seed, 2 ** 32),
  ].map((rng) => `${rng.uint32()} ${rng.uint32()}`);
  assert.equal(new Set(first).size, first.length, `seed ${seed}`);
});

Deno.test("below is uniform and keeps its bounds", () => {
  const rng = new Rng(seed, "below");
  const counts = new Array(7).fill(0);
  for (let i = 0; i < 70_000; i++) counts[rng.below(7)]++;
  // Standard deviation of a count is 93.
  for (const count of counts) assert.ok(Math.abs(count - 10_000) < 600, `seed ${seed}: ${counts}`);
  assert.equal(rng.below(1), 0);
  assert.ok(rng.below(2 ** 32) < 2 ** 32);
  for (const n of [0, -1, 1.5, NaN, 2 ** 33]) assert.throws(() => rng.below(n), RangeError);
});

Deno.test("normal numbers have the moments and quantiles of a normal distribution", () => {
  const n = 400_000;
  const values = new Float32Array(n);
  new Rng(seed, "normal").fillNormal(values);
  const moment = (p: number) => values.reduce((sum, x) => sum + x ** p, 0) / n;
  // Standard errors: 0.0016, 0.0022, 0.006, 0.0155.
  assert.ok(Math.abs(moment(1)) < 0.01, `seed ${seed}: mean ${moment(1)}`);
  assert.ok(Math.abs(moment(2) - 1) < 0.014, `seed ${seed}: variance ${moment(2)}`);
  assert.ok(Math.abs(moment(3)) < 0.04, `seed ${seed}: third moment ${moment(3)}`);
  assert.ok(Math.abs(moment(4) - 3) < 0.1, `seed ${seed}: fourth moment ${moment(4)}`);
  values.sort();
  for (const [p, z] of [[0.001, -3.0902323], [0.05, -1.6448536], [0.3, -0.5244005]]) {
    const tolerance = 6 * Math.sqrt(p * (1 - p) / n) / (Math.exp(-z * z / 2) / 2.5066);
    const below = values[Math.floor(p * n)], above = values[Math.floor((1 - p) * n)];
    assert.ok(Math.abs(below - z) < tolerance, `seed ${seed}: quantile ${p} is ${below}`);
    assert.ok(Math.abs(above + z) < tolerance, `seed ${seed}: quantile ${1 - p} is ${above}`);
  }
});

Deno.test("normal() maps a word to its quantile", () => {
  // The distribution function, by Simpson's rule, must lead back to the word.
  const density = (x: number) => Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);
  for (let i = 0; i < 50; i++) {
    const position = i * 977;
    const p = (new Rng(seed, 3, position).uint32() + 0.5) / 2 ** 32;
    const z = new Rng(seed, 3, position).normal();
    let area = density(0) + density(z);
    for (let k = 1; k < 200; k++) area += density(z * k / 200) * (k % 2 ? 4 : 2);
    area *= z / 600;
    assert.ok(Math.abs(area + 0.5 - p) < 2e-7, `seed ${seed}: z ${z} of p ${p} has ${area + 0.5}`);
  }
});

Deno.test("fillNormal gives the numbers of normal(), from any position", () => {
  for (let start = 0; start < 5; start++) {
    const filled = new Float32Array(11);
    const a = new Rng(seed, "fill", start), b = new Rng(seed, "fill", start);
    a.fillNormal(filled, 0.02);
    assert.deepEqual([...filled], [...filled].map(() => Math.fround(0.02 * b.normal())));
    assert.equal(a.uint32(), b.uint32(), `seed ${seed}, start ${start}`);
  }
});

Deno.test("shuffle gives every order equally often", () => {
  const counts = new Map<string, number>();
  const rng = new Rng(seed, "shuffle");
  for (let i = 0; i < 12_000; i++) {
    const order = rng.shuffle([0, 1, 2, 3]).join("");
    counts.set(order, (counts.get(order) ?? 0) + 1);
  }
  assert.equal(counts.size, 24);
  for (const [order, n] of counts) {
    assert.ok(Math.abs(n - 500) < 140, `seed ${seed}: ${order} ${n}`);
  }
});

Deno.test("a wrong seed, stream or position is refused", () => {
  for (const bad of [-1, 0.5, NaN, 2 ** 53]) {
    assert.throws(() => new Rng(bad, 0), /seed/);
    assert.throws(() => new Rng(0, bad), /stream/);
    assert.throws(() => new Rng(0, 0, bad), /position/);
  }
});
