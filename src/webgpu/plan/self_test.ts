/**
 * Single kernels of one output word, and how far an adapter lets loops go.
 *
 * @module
 */
import { UserError } from "../../errors.ts";
import { PlanRecorder } from "../../graph/plan_recorder.ts";
import { type Kernel, makeKernel } from "../../kernels/wgsl/kernel.ts";
import { MOST_ITERATIONS } from "../../kernels/wgsl/loops.ts";
import { update } from "../../kernels/wgsl/operand.ts";
import { matrixAt } from "../../ops/matrix.ts";
import type { Gpu } from "../device/device.ts";
import { ReadBack } from "../device/read_back.ts";
import { createStorageBuffer, Plan, SlotPool } from "./plan.ts";

/** What single kernels write: one word. */
export const OUTPUT_WORD = matrixAt({ label: "output", size: 1 }, 0, { rows: 1, cols: 1 });

/**
 * Makes sure that a software driver runs loops as long as kernels have them: one that ends them
 * earlier would give wrong numbers without an error. GPUs are left to `deno task doctor`.
 *
 * @param count what counts the rounds, {@linkcode countRounds}: tests have others
 * @throws {UserError} if it does not
 */
export async function requireLongLoops(gpu: Gpu, count = countRounds): Promise<void> {
  if (!gpu.capabilities.software) return;
  // The rounds of the outer loop count too.
  const outer = 6;
  const inner = MOST_ITERATIONS / outer - 1;
  const counted = await count(gpu, outer, inner);
  if (counted === outer * inner) return;
  throw new UserError(
    `Cannot compute on ${gpu.name}: its driver ends loops after about ${counted} rounds, and sums ` +
      `would be silently wrong; use another driver, or device=cpu`,
  );
}

/** Rounds of a loop of `inner` rounds, `outer` times, that an invocation really makes. */
export async function countRounds(gpu: Gpu, outer: number, inner: number): Promise<number> {
  const kernel = makeKernel({
    name: "count_rounds",
    shape: `${outer}x${inner}`,
    operands: { counted: update(OUTPUT_WORD, "u32") },
    // Lengths that the compiler does not see.
    uniforms: { outer, inner, step: 1 },
    workgroup: 1,
    grid: [1, 1, 1],
    // More than any other kernel may: how far loops go is what this one tries.
    iterations: 0,
    body: `
  counted[0] = 0u;
  for (var i = 0u; i < u.outer; i++) {
    for (var j = 0u; j < u.inner; j++) { counted[0] += u.step; }
  }`,
  });
  return (await runAlone(gpu, kernel)).word;
}

/** Runs a kernel of one output word; `ms` until it is there. */
export async function runAlone(gpu: Gpu, kernel: Kernel): Promise<{ word: number; ms: number }> {
  const { storage } = OUTPUT_WORD;
  const buffer = createStorageBuffer(gpu, storage.label, storage.size);
  const recorder = new PlanRecorder(gpu.capabilities);
  recorder.dispatch(kernel);
  const pool = new SlotPool(gpu);
  const reader = new ReadBack(gpu, 4);
  const start = performance.now();
  const plan = new Plan(gpu, recorder, new Map([[storage, buffer]]), pool);
  try {
    plan.submit();
    const [word] = new Uint32Array(await reader.read(buffer, 0, 4));
    return { word, ms: performance.now() - start };
  } finally {
    plan.destroy();
    pool.destroy();
    reader.destroy();
    buffer.destroy();
  }
}
