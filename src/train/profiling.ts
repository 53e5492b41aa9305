/**
 * `profile=true`: which step it times, and what it says where it cannot.
 *
 * @module
 */
import type { Batch } from "../data/dataset.ts";
import type { Engine, Metrics, StepHyper } from "../engine.ts";
import { stageSpans } from "../config/stages.ts";
import { WebGpuEngine } from "../webgpu/engine/engine.ts";
import { formatProfile } from "../webgpu/plan/profile.ts";
import type { Job } from "./job.ts";
import { kernelTimes } from "./kernel_groups.ts";

/** Steps on an engine before the one that is timed: its pipelines are warm by then. */
export const WARM_STEPS = 3;

/** Does a step, kernel by kernel; prints their table and returns their times to be logged. */
export async function profileStep(
  engine: WebGpuEngine,
  { batch, hyper, progress }: { batch: Batch; hyper: StepHyper } & Pick<Job, "progress">,
): Promise<Metrics> {
  const rows = await engine.profile(batch, hyper);
  progress.note(formatProfile(rows));
  progress.note(engine.describeMemory());
  return kernelTimes(rows);
}

/** Whether steps of a run can be timed kernel by kernel, and are to be. */
export function isProfiled(
  job: Pick<Job, "config" | "device">,
  engine: Engine,
): engine is WebGpuEngine {
  return job.config.profile && engine instanceof WebGpuEngine && obstacle(job) === null;
}

/**
 * Where `profile=true` has no effect, and why; null where it always has.
 *
 * @param first step at which the run starts or goes on
 */
export function profileNote(job: Pick<Job, "config" | "device">, first: number): string | null {
  const { profile, stages } = job.config;
  if (!profile) return null;
  const reason = obstacle(job);
  if (reason) return `profile=true has no effect ${reason}`;
  const short = stageSpans(stages)
    .filter(({ start, end }) => end > first && end - Math.max(start, first) <= WARM_STEPS)
    .map(({ stage }) => stage.name);
  return short.length
    ? `profile=true has no effect in ${
      short.join(", ")
    }: it times the step after ${WARM_STEPS} others`
    : null;
}

function obstacle({ config, device: { gpu } }: Pick<Job, "config" | "device">): string | null {
  if (!gpu) return "on the CPU: it times kernels of WebGPU";
  if (!gpu.features.includes("timestamp-query")) return "on an adapter without timestamp queries";
  const { accumulate } = config;
  return accumulate > 1 ? `with accumulate=${accumulate}: it times steps of one micro-batch` : null;
}
