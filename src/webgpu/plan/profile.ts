/**
 * GPU time of each kernel of a plan.
 *
 * @module
 */
import type { Gpu } from "../device/device.ts";
import type { Plan } from "./plan.ts";
import { ReadBack } from "../device/read_back.ts";

/** Dispatches of one kernel and shape, summed over a plan. */
export interface ProfileRow {
  readonly label: string;
  calls: number;
  ms: number;
  flops: number;
  bytes: number;
}

/** WebGPU's largest query set. */
const MAX_QUERIES = 4096;

/**
 * Runs a plan once with a pass and two timestamps for every dispatch. Slower than a normal step
 * (a pass costs 50 µs), so only the kernels' times mean something, not the total's.
 *
 * @returns rows by label, longest first
 */
export async function profilePlan(gpu: Gpu, plan: Plan): Promise<ProfileRow[]> {
  const { device } = gpu;
  if (!gpu.features.includes("timestamp-query")) {
    throw new Error("Cannot profile: the adapter has no timestamp queries");
  }
  const rows = new Map<string, ProfileRow>();
  const perSet = MAX_QUERIES / 2;
  for (let first = 0; first < plan.steps.length; first += perSet) {
    const steps = plan.steps.slice(first, first + perSet);
    const count = 2 * steps.length;
    const querySet = device.createQuerySet({ type: "timestamp", count });
    const resolved = device.createBuffer({
      label: "timestamps",
      size: count * 8,
      usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
    });
    const encoder = device.createCommandEncoder();
    steps.forEach(({ kernel, group }, i) => {
      const pass = encoder.beginComputePass({
        timestampWrites: {
          querySet,
          beginningOfPassWriteIndex: 2 * i,
          endOfPassWriteIndex: 2 * i + 1,
        },
      });
      pass.setPipeline(gpu.pipeline(kernel));
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...kernel.grid);
      pass.end();
    });
    encoder.resolveQuerySet(querySet, 0, count, resolved, 0);
    device.queue.submit([encoder.finish()]);
    const reader = new ReadBack(gpu, count * 8);
    const stamps = new BigUint64Array(await reader.read(resolved, 0, count * 8));
    steps.forEach(({ kernel: { label, flops, bytes } }, i) => {
      const row = rows.get(label) ?? { label, calls: 0, ms: 0, flops: 0, bytes: 0 };
      rows.set(label, row);
      row.calls++;
      row.ms += Number(stamps[2 * i + 1] - stamps[2 * i]) / 1e6;
      row.flops += flops;
      row.bytes += bytes;
    });
    reader.destroy();
    resolved.destroy();
    querySet.destroy();
  }
  return [...rows.values()].sort((a, b) => b.ms - a.ms);
}

/** A table for people: kernel, calls, ms, share, GFLOP/s, GB/s. */
export function formatProfile(rows: readonly ProfileRow[]): string {
  const total = rows.reduce((sum, r) => sum + r.ms, 0);
  const width = Math.max(6, ...rows.map((r) => r.label.length));
  const line = (cells: string[]) =>
    [cells[0].padEnd(width), ...cells.slice(1).map((c) => c.padStart(9))].join(" ");
  const rate = (amount: number, ms: number) =>
    amount > 0 && ms > 0 ? (amount / ms / 1e6).toFixed(1) : "";
  return [
    line(["kernel", "calls", "ms", "share", "GFLOP/s", "GB/s"]),
    ...rows.map((r) =>
      line([
        r.label,
        String(r.calls),
        r.ms.toFixed(3),
        `${(100 * r.ms / total).toFixed(1)} %`,
        rate(r.flops, r.ms),
        rate(r.bytes, r.ms),
      ])
    ),
    line([
      "total",
      String(rows.reduce((sum, r) => sum + r.calls, 0)),
      total.toFixed(3),
      "",
      "",
      "",
    ]),
  ].join("\n");
}
