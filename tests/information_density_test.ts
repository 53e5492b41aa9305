/** Eigenvalues, effective rank and reconstruction error, on matrices whose answers are known. */
import assert from "node:assert/strict";
import { informationDensity } from "../src/measure/latents.ts";
import { symmetricEigen } from "../src/measure/symmetric_eigen.ts";
import { latentStatistics } from "../src/ops/attention/latent_statistics.ts";
import { Rng } from "../src/rng.ts";
import { TfjsBackend } from "../src/tfjs/backend.ts";

const seed = Number(Deno.env.get("SEED") ?? Math.floor(Math.random() * 2 ** 32));

function normal(count: number, name: string): Float64Array {
  const values = new Float32Array(count);
  new Rng(seed, name).fillNormal(values, 1);
  return Float64Array.from(values);
}

/** a · b of row-major [m, k] and [k, n]. */
function product(a: Float64Array, b: Float64Array, [m, k, n]: readonly number[]): Float64Array {
  return Float64Array.from({ length: m * n }, (_, i) => {
    let sum = 0;
    for (let j = 0; j < k; j++) sum += a[Math.floor(i / n) * k + j] * b[j * n + i % n];
    return sum;
  });
}

function transpose(a: Float64Array, rows: number, cols: number): Float64Array {
  return a.map((_, i) => a[i % rows * cols + Math.floor(i / rows)]);
}

function near(got: number, want: number, tolerance: number, what: string): void {
  const message = `${what}: ${got}, not ${want} (SEED=${seed})`;
  assert(Math.abs(got - want) <= tolerance, message);
}

Deno.test("symmetricEigen takes matrices apart and puts them together", () => {
  for (const n of [1, 2, 3, 7, 32, 65]) {
    const a = normal(n * n, `eigen ${n}`);
    const matrix = a.map((x, i) => x + a[i % n * n + Math.floor(i / n)]);
    const { values, vectors } = symmetricEigen(matrix, n);
    for (let i = 1; i < n; i++) assert(values[i - 1] >= values[i]);
    const scaled = vectors.map((x, i) => x * values[Math.floor(i / n)]);
    const again = product(transpose(vectors, n, n), scaled, [n, n, n]);
    again.forEach((x, i) => near(x, matrix[i], 1e-11 * n, `${n}x${n}, element ${i}`));
    const identity = product(vectors, transpose(vectors, n, n), [n, n, n]);
    identity.forEach((x, i) => near(x, i % (n + 1) ? 0 : 1, 1e-12 * n, `vectors of ${n}`));
  }
});

Deno.test("symmetricEigen of matrices with equal, zero and known eigenvalues", () => {
  const values = (matrix: number[], n: number) => [
    ...symmetricEigen(Float64Array.from(matrix), n).values,
  ];
  assert.deepEqual(values([0, 0, 0, 0], 2), [0, 0]);
  assert.deepEqual(values([2, 0, 0, 0, 5, 0, 0, 0, 2], 3), [5, 2, 2]);
  // Second differences: 2 - 2 cos(π i / (n + 1)).
  const n = 40;
  const second = Array.from({ length: n * n }, (_, i) => {
    const distance = Math.abs(Math.floor(i / n) - i % n);
    return distance === 0 ? 2 : distance === 1 ? -1 : 0;
  });
  values(second, n).forEach((x, i) =>
    near(x, 2 - 2 * Math.cos(Math.PI * (n - i) / (n + 1)), 1e-12, `eigenvalue ${i}`)
  );
  const ones = values(new Array(36).fill(1), 6);
  near(ones[0], 6, 1e-12, "of ones");
  ones.slice(1).forEach((x) => near(x, 0, 1e-12, "of ones"));
  assert.throws(() => symmetricEigen(Float64Array.of(1, NaN, 1, 1), 2), /2x2 finite/);
  assert.throws(() => symmetricEigen(Float64Array.of(1, 2, 3), 2), RangeError);
});

/** Density of latents c [rows, b] for inputs x [rows, a], by way of the op. */
async function densityOf(x: Float64Array, c: Float64Array, [rows, a, b]: readonly number[]) {
  const backend = await TfjsBackend.open("wasm");
  const statistics = latentStatistics(
    backend.tensor([...x], rows, a),
    backend.tensor([...c], rows, b),
  );
  return informationDensity(backend.read(statistics), { tokens: rows, inputs: a });
}

Deno.test("isotropic latents use all directions, latents on a line use one", async () => {
  const [rows, a, b] = [4000, 6, 12];
  const x = normal(rows * a, "x");
  // A common offset is no direction.
  const isotropic = normal(rows * b, "c").map((value) => value + 3);
  const full = await densityOf(x, isotropic, [rows, a, b]);
  near(full.effectiveRank, b, 0.3, "isotropic");
  near(full.spectralRank, b, 0.2, "isotropic");
  near(full.reconstructionError, 1, 0.02, "independent of the input");
  near(full.spectrum.reduce((p, q) => p + q), 1, 1e-9, "shares");

  const line = product(normal(rows, "line"), normal(b, "direction"), [rows, 1, b]);
  const thin = await densityOf(x, line, [rows, a, b]);
  near(thin.effectiveRank, 1, 1e-4, "a line");
  near(thin.spectralRank, 1, 1e-3, "a line");
  near(thin.spectrum[0], 1, 1e-4, "share of the line");

  // One direction with 3 times the deviation of 3 others: (9 + 3)² / (81 + 3).
  const four = normal(rows * 4, "four").map((value, i) => i % 4 ? value : 3 * value);
  near((await densityOf(x, four, [rows, a, 4])).effectiveRank, 144 / 84, 0.1, "unequal");
  const constant = await densityOf(x, new Float64Array(rows * 4).fill(2), [rows, a, 4]);
  near(constant.reconstructionError, 1, 1e-6, "constant latents");
});

Deno.test("the spectral rank of equal eigenvalues is their number, of others what their entropy says", async () => {
  // Columns of ±1 that are orthogonal to each other and to a constant: eigenvalues are squares of scales.
  const rows = 16;
  const signs = (mask: number, row: number) =>
    (mask & row).toString(2).replaceAll("0", "").length % 2 ? -1 : 1;
  const latents = (scales: readonly number[]) =>
    Float64Array.from({ length: rows * scales.length }, (_, i) => {
      const [row, col] = [Math.floor(i / scales.length), i % scales.length];
      return 5 + scales[col] * signs(col + 1, row);
    });
  const rank = async (...scales: number[]) =>
    (await densityOf(normal(rows, "x"), latents(scales), [rows, 1, scales.length])).spectralRank;
  near(await rank(2, 2, 2, 2, 2), 5, 1e-4, "five equal");
  near(await rank(0, 3, 0, 3, 3), 3, 1e-4, "three equal of five");
  near(await rank(Math.SQRT2, 1, 1), 2 ** 1.5, 1e-4, "1/2, 1/4, 1/4");
  near(await rank(0, 0), 0, 0, "constants");
});

Deno.test("the reconstruction error is what a linear map from the latent leaves", async () => {
  const [rows, a, b] = [2000, 10, 4];
  const c = normal(rows * b, "latent");
  const known = product(c, normal(b * a, "map"), [rows, b, a]).map((value) => value - 1);
  near((await densityOf(known, c, [rows, a, b])).reconstructionError, 0, 1e-4, "linear");

  // Of 10 independent inputs the latent keeps 4.
  const x = normal(rows * a, "inputs");
  const first = Float64Array.from({ length: rows * b }, (_, i) => x[Math.floor(i / b) * a + i % b]);
  near((await densityOf(x, first, [rows, a, b])).reconstructionError, 0.6, 0.03, "4 of 10");

  // Repeating columns of the latent adds nothing and breaks nothing.
  const twice = Float64Array.from(
    { length: rows * 2 * b },
    (_, i) => first[Math.floor(i / (2 * b)) * b + i % b],
  );
  const repeated = await densityOf(x, twice, [rows, a, 2 * b]);
  near(repeated.reconstructionError, 0.6, 0.03, "repeated");
  assert.throws(() => informationDensity([1, 2, 3], { tokens: 1, inputs: 1 }), RangeError);
});
