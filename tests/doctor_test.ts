/** `deno task doctor`: that it covers all kernels, is right where all is well, and notices damage. */
import assert from "node:assert/strict";
import { type CaseReport, checkCase, type OpCase } from "../src/doctor/cases/check_case.ts";
import { allCases } from "../src/doctor/checks/all.ts";
import { checkDevice, judgeLoops } from "../src/doctor/device_checks.ts";
import { Float64Backend, type Matrix64, matrixValues } from "../src/doctor/float64/backend.ts";
import { gradients } from "../src/doctor/float64/tensor64.ts";
import { Random } from "../src/doctor/cases/random.ts";
import { failures, familiesOf, formatChecks } from "../src/doctor/checkup.ts";
import type { Kernel } from "../src/kernels/wgsl/kernel.ts";
import { matrixAt } from "../src/ops/matrix.ts";
import type { Op } from "../src/ops/op.ts";
import { TfjsBackend, type TfjsTensor } from "../src/tfjs/backend.ts";
import { Graph, type GraphTensor } from "../src/graph/graph.ts";
import { lower } from "../src/graph/lower.ts";
import type { Capabilities } from "../src/kernels/wgsl/device.ts";
import { Gpu } from "../src/webgpu/device/device.ts";
import { assertClose, randomNormal, testGpu } from "./check_op.ts";
import { tensor64, values64 } from "./float64_backend.ts";

const seed = Math.floor(Math.random() * 2 ** 32);
const random = new Random(seed, "doctor test");
const cases = allCases(random);

/** A case as a graph on nothing, and what it gives. */
function trace({ inputs, apply }: OpCase): { graph: Graph; outputs: GraphTensor[] } {
  const graph = new Graph();
  const outputs = apply(inputs.map(({ rows, cols, dtype, gradient = dtype !== "i32" }) => {
    const storage = { label: "input", size: rows * cols };
    return graph.leaf(matrixAt(storage, 0, { rows, cols, dtype }), { trained: gradient });
  }));
  return { graph, outputs: outputs as GraphTensor[] };
}

/** Names of the ops that a case applies. */
function opsOf(given: OpCase): string[] {
  return trace(given).graph.nodes.map(({ op }) => op.name);
}

/** Names of the kernels that a case runs on a device, forwards and backwards. */
function kernelsOf(given: OpCase, capabilities: Capabilities): string[] {
  const { graph, outputs } = trace(given);
  const wants = given.inputs.some(({ dtype, gradient }) => gradient ?? dtype !== "i32");
  const losses = Object.entries(given.losses ?? {});
  const { rows, cols } = outputs[0];
  const cotangent = matrixAt({ label: "cotangent", size: rows * cols }, 0, { rows, cols });
  const { dispatches } = lower(graph, {
    capabilities,
    keep: outputs,
    losses: losses.map(([i, weight]) => ({ tensor: outputs[Number(i)], weight })),
    cotangents: wants && !losses.length ? [{ tensor: outputs[0], matrix: cotangent }] : [],
  });
  return dispatches.map(({ kernel }) => kernel.label.split(" ")[0]);
}

/** The files in a folder and in those within it. */
function filesIn(folder: URL): URL[] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) =>
    isDirectory ? filesIn(new URL(`${name}/`, folder)) : [new URL(name, folder)]
  );
}

Deno.test("doctor checks every op that there is", async () => {
  const checked = new Set(cases.flatMap(opsOf));
  const all: string[] = [];
  for (const file of filesIn(new URL("../src/ops/", import.meta.url))) {
    const exported: Record<string, unknown> = await import(file.href);
    const ops = Object.keys(exported).filter((key) => key.endsWith("Op"));
    all.push(...ops.map((key) => (exported[key] as Op<unknown>).name));
  }
  assert(all.length > 25, `the walk found ${all.length} ops`);
  assert.deepEqual(all.filter((name) => !checked.has(name)), []);
  // And the kernels of the update, which are no ops of a model.
  for (const name of ["adamw", "globalNorm", "recordMetrics"]) assert(checked.has(name), name);
});

Deno.test("doctor runs every kernel that there is, on one kind of device or the other", () => {
  const common = { maxBindingBytes: 2 ** 27, maxInvocations: 1024 };
  const devices: Capabilities[] = [
    { ...common, software: true, workgroupBytes: 32_768, subgroups: { min: 8, max: 8 } },
    { ...common, software: false, workgroupBytes: 49_152, subgroups: { min: 32, max: 32 } },
  ];
  const run = new Set(devices.flatMap((device) => cases.flatMap((one) => kernelsOf(one, device))));
  const missing: string[] = [];
  let count = 0;
  for (const file of filesIn(new URL("../src/kernels/", import.meta.url))) {
    const code = Deno.readTextFileSync(file).replace(/\/\*[^]*?\*\//g, "");
    for (const [, name] of code.matchAll(/\bname: "(\w+)",/g)) {
      count++;
      if (!run.has(name)) missing.push(name);
    }
  }
  assert(count > 40, `the walk found ${count} kernels`);
  assert.deepEqual(missing, []);
});

Deno.test("doctor's float64 is that of the tests, outputs and gradients of every case", async () => {
  const backend = await TfjsBackend.open("float64");
  const { tf } = backend;
  for (const { name, inputs, apply, losses } of cases) {
    const values = inputs.map(({ rows, cols, values }) => values ?? random.normal(rows * cols));
    const isLeaf = inputs.map(({ dtype, gradient }) => gradient ?? dtype !== "i32");
    const own = new Float64Backend();
    const leaves = inputs.map(({ rows, cols, dtype = "f32" }, i) =>
      own.matrix({ rows, cols, dtype }, values[i], isLeaf[i])
    );
    const outputs = apply(leaves) as Matrix64[];
    backend.activate();
    const theirs = inputs.map(({ rows, cols, dtype }, i) =>
      dtype === "i32"
        ? tf.tensor2d(Int32Array.from(values[i]), [rows, cols], "int32")
        : tensor64(values[i], [rows, cols])
    );
    const run = (tensors: readonly unknown[]) =>
      apply(tensors.map((t, i) => backend.wrap(t as never, inputs[i].dtype ?? "f32")))
        .map((t) => (t as TfjsTensor).value);
    run(theirs).forEach((t, i) => {
      // Constants are rounded to float32 there.
      assertClose(`${name} output ${i}, seed ${seed}`, matrixValues(outputs[i]), values64(t), 1e-6);
    });
    const wanted = inputs.flatMap((_, i) => isLeaf[i] ? [i] : []);
    if (!wanted.length) continue;
    const cotangent = losses ? Float32Array.of(losses[0]) : randomNormal(outputs[0].value.size);
    const given = tensor64(cotangent, [...outputs[0].value.shape]);
    const slopes = tf.grads((...tensors) => {
      const all: unknown[] = [...theirs];
      wanted.forEach((i, k) => all[i] = tensors[k]);
      return tf.sum(tf.mul(run(all)[0], given));
    })(wanted.map((i) => theirs[i]));
    const got = gradients(
      [{ tensor: outputs[0].value, gradient: cotangent }],
      wanted.map((i) => leaves[i].value),
    );
    wanted.forEach((i, k) => {
      assertClose(`${name} gradient ${i}, seed ${seed}`, got[k], values64(slopes[k]), 1e-6);
    });
  }
});

/** Checks one case on the adapter's own kernels. */
async function check(name: string, change?: (kernel: Kernel) => Kernel): Promise<CaseReport> {
  const gpu = await testGpu();
  const index = cases.findIndex((one) => one.name === name);
  return await checkCase(
    gpu,
    cases[index],
    () => allCases(random)[index],
    familiesOf(gpu, "own")[0],
    random,
    change,
  );
}

/** A kernel whose code says something else, and that has to say the first. */
function broken(label: RegExp, from: string, to: string): (kernel: Kernel) => Kernel {
  return (kernel) => {
    if (!label.test(kernel.label)) return kernel;
    assert(kernel.code.includes(from), `${kernel.label} has no "${from}":\n${kernel.code}`);
    return { ...kernel, code: kernel.code.replaceAll(from, to), variants: undefined };
  };
}

Deno.test("doctor notices kernels that compute something else, and which part of it", async () => {
  const well = await check("gelu");
  assert.deepEqual([well.ok, well.note], [true, null]);
  const forward = await check("gelu", broken(/^gelu \d/, "1.5957", "1.5958"));
  assert.equal(forward.ok, false);
  assert(forward.output > 1e-5 && forward.gradients[0]! < 1e-4, JSON.stringify(forward));
  const backward = await check("gelu", broken(/^gelu_grad/, "1.0 - s", "1.001 - s"));
  assert.equal(backward.ok, false);
  assert(backward.output < 1e-5 && backward.gradients[0]! > 1e-4, JSON.stringify(backward));
  const device = [judgeLoops(3, 3)].map((report) => ({ name: "long loops", ...report }));
  const checks = { device, kernels: [well, forward, backward], seconds: 1 };
  assert.equal(failures(checks), 2);
  assert.match(formatChecks(checks), /gelu .*FAILED\n[^]*2 FAILED$/);
});

Deno.test("doctor notices kernels that write nothing, and wrong sums and selections", async () => {
  const idle = (kernel: Kernel) =>
    kernel.label.startsWith("add") ? { ...kernel, grid: [0, 1, 1] as const } : kernel;
  const nothing = await check("add", idle);
  assert.equal(nothing.ok, false);
  assert.equal(nothing.output, Infinity);
  const wrongSum = await check(
    "sumOfSquares, normOfPartials",
    broken(/^sum_of/, "v * v", "abs(v)"),
  );
  assert.equal(wrongSum.ok, false);
  const ties = await check(
    "cacheTopk",
    (kernel) => kernel.label.startsWith("top_k") ? { ...kernel, grid: [0, 1, 1] as const } : kernel,
  );
  assert.equal(ties.ok, false);
});

Deno.test("doctor draws again what differs, and says so", async () => {
  let runs = 0;
  // The first kernel of all.
  const once = (kernel: Kernel) => runs++ < 1 ? { ...kernel, grid: [0, 1, 1] as const } : kernel;
  const report = await check("gelu", once);
  assert.deepEqual([report.ok, report.note], [true, "only with a second draw of inputs"]);
  assert(report.output < 1e-5);
});

Deno.test("doctor says which kernel a driver refuses", async () => {
  using gpu = (await Gpu.open())!;
  const given = cases.find(({ name }) => name === "swiglu")!;
  const change = (kernel: Kernel) => ({ ...kernel, code: `${kernel.code} nonsense` });
  const report = await checkCase(
    gpu,
    given,
    () => given,
    familiesOf(gpu, "own")[0],
    random,
    change,
  );
  assert.equal(report.ok, false);
  assert.match(report.note!, /^GPU error: /);
});

Deno.test("doctor's checks of the adapter pass where all is well", async () => {
  const reports = await checkDevice(await testGpu(), random);
  assert.deepEqual(reports.map(({ name }) => name), [
    ...["read back", "long loops", "pipelines", "same bits twice"],
  ]);
  for (const { name, ok, note } of reports) assert(ok, `${name}: ${note}`);
});

Deno.test("doctor tells a driver's known end of long loops from another", () => {
  assert.match(judgeLoops(70_000, 70_000).note, /all run/);
  const known = judgeLoops(65_405, 70_000);
  assert(known.ok);
  assert.match(known.note, /^known limit: .*65405 of 70000/);
  for (const counted of [0, 100, 40_000, 66_000, 70_001]) {
    assert.equal(judgeLoops(counted, 70_000).ok, false, `${counted}`);
  }
});

/** The command, in a process of its own. */
async function doctor(args: readonly string[], env: Record<string, string> = {}) {
  const cli = new URL("../src/commands/doctor.ts", import.meta.url).pathname;
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    ...{ args: ["run", "-A", "--no-check", "--no-lock", cli, ...args], env },
  }).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, out, err };
}

Deno.test("doctor --json says all there is to say, without network and npm packages", async () => {
  const folder = await Deno.makeTempDir();
  try {
    // An empty cache and a registry at a port where nobody listens.
    const env = { DENO_DIR: folder, NPM_CONFIG_REGISTRY: "http://127.0.0.1:9" };
    const { code, out, err } = await doctor(["--json", "seed=7"], env);
    assert.equal(code, 0, err);
    const said = JSON.parse(out);
    const { environment, caches, memory, disk, checks } = said;
    assert.equal(said.seed, 7);
    assert.equal(environment.adapter, (await testGpu()).name);
    assert(environment.limits.maxBufferSize > 0 && environment.versions.deno);
    assert(memory.totalBytes > 0 && disk.freeBytes > 0);
    assert.equal(caches[0].path, folder);
    assert.equal(checks.kernels.length, cases.length * (said.isSoftware ? 1 : 2));
    for (const { ok, op, note } of checks.kernels) assert(ok, `${op}: ${note}`);
    assert.equal(checks.device.length, 4);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("doctor refuses what it does not take", async () => {
  const help = await doctor(["--help"]);
  assert.deepEqual([help.code, help.err], [0, ""]);
  assert.match(help.out, /^usage: deno task doctor /);
  const refused: [string, RegExp][] = [
    ["kernels=some", /^error: Cannot use kernels=some: use own or all\n$/],
    ["seeds=3", /^error: Cannot set "seeds": did you mean seed\?\n$/],
    ["seed=-1", /^error: .*seed.*\n$/],
    ["kernels", /^error: Cannot set kernels to nothing/],
    ["gelu", /^error: Cannot look at gelu: doctor takes keys alone/],
    ["--fast", /^error: Cannot read "--fast"/],
  ];
  for (const [word, message] of refused) {
    const { code, out, err } = await doctor([word]);
    assert.deepEqual([code, out], [2, ""], word);
    assert.match(err, message);
  }
});

Deno.test("doctor fails where there is no adapter, and says how to get one", async () => {
  const { code, out, err } = await doctor([], {
    VK_ICD_FILENAMES: "/none",
    VK_DRIVER_FILES: "/none",
  });
  assert.equal(code, 1);
  assert.match(out, /^adapter +no WebGPU adapter\n/);
  assert.match(err, /^No WebGPU adapter to check: .*mesa-vulkan-drivers\)\n$/);
});
