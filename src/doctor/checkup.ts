/**
 * All that `deno task doctor` finds out, and how it is printed.
 *
 * @module
 */
import type { Kernel } from "../kernels/wgsl/kernel.ts";
import { textTable } from "../text/text_table.ts";
import { Gpu } from "../webgpu/device/device.ts";
import { formatBytes } from "../text/units.ts";
import { type CaseReport, checkCase, type Family } from "./cases/check_case.ts";
import { allCases } from "./checks/all.ts";
import { checkDevice, type DeviceReport } from "./device_checks.ts";
import type { Facts } from "./facts.ts";
import { Random } from "./cases/random.ts";

/** How to check an adapter. */
export interface CheckOptions {
  /** Of the random inputs. */
  readonly seed: number;
  /** `own`: the kernels that the adapter trains with; `all`: those of other adapters too. */
  readonly kernels: "own" | "all";
  /** What to run instead of a kernel: for tests of this. */
  readonly change?: (kernel: Kernel) => Kernel;
  /** Hears of each check of a kernel when it is done. */
  readonly onCase?: (report: CaseReport) => void;
}

/** What came of all checks. */
export interface Checks {
  readonly device: readonly DeviceReport[];
  readonly kernels: readonly CaseReport[];
  readonly seconds: number;
}

/**
 * Small tiles of workgroup memory: a software adapter would compile the large ones of GPUs for
 * minutes, and never uses them.
 */
const SMALL_TILES = 6000;

/** The kernels to be checked on an adapter, its own first. */
export function familiesOf(gpu: Gpu, kernels: CheckOptions["kernels"]): Family[] {
  const { software } = gpu.capabilities;
  const own = { name: software ? "software" : "GPU", capabilities: { software } };
  const other = software
    ? { name: "GPU", capabilities: { software: false, workgroupBytes: SMALL_TILES } }
    : { name: "software", capabilities: { software: true } };
  return kernels === "all" ? [own, other] : [own];
}

/** Checks the adapter. Nothing is written outside of its memory. */
export async function checkAdapter(
  { seed, kernels, change, onCase }: CheckOptions,
): Promise<Checks> {
  const start = performance.now();
  const random = new Random(seed, "doctor");
  const reports: CaseReport[] = [];
  let gpu = await openGpu();
  try {
    for (const family of familiesOf(gpu, kernels)) {
      for (const [i, given] of allCases(random).entries()) {
        const again = () => allCases(random)[i];
        const report = await checkCase(gpu, given, again, family, random, change);
        reports.push(report);
        onCase?.(report);
        if (report.ok || report.note === null) continue;
        // A device that has had an error goes on reporting it.
        gpu.destroy();
        gpu = await openGpu();
      }
    }
    const device = await checkDevice(gpu, random);
    return { device, kernels: reports, seconds: (performance.now() - start) / 1000 };
  } finally {
    gpu.destroy();
  }
}

async function openGpu(): Promise<Gpu> {
  const gpu = await Gpu.open();
  if (gpu) return gpu;
  throw new Error("The adapter is there no longer: the driver has given up");
}

/** How many checks have failed. */
export function failures({ device, kernels }: Checks): number {
  return [...device, ...kernels].filter(({ ok }) => !ok).length;
}

/** Limits that kernels have nothing to do with; `--json` has them all. */
const OF_PICTURES = /Texture|Sampler|Vertex|Fragment|Color|InterStage/;

/** The facts for people, to be pasted into a bug report. */
export function formatFacts(facts: Facts): string {
  const { environment: e, driver, isSoftware, disk, memory, caches } = facts;
  const versions = Object.entries(e.versions as object).map(([name, v]) => `${name} ${v}`);
  const { sha, dirty } = e.git as { sha: string | null; dirty: boolean | null };
  const bytes = (n: number | null) => n === null ? "not known" : formatBytes(n);
  const rows = [
    ["adapter", `${e.adapter}${isSoftware ? " (software)" : ""}`],
    ["driver", driver ?? (isSoftware === null ? "none" : "named by the adapter")],
    ["features", (e.features as string[]).join(", ") || "none"],
    ["versions", versions.join(", ")],
    ["git", sha ? `${sha}${dirty ? ", changed since" : ""}` : "no repository"],
    ["system", `${e.os}, ${e.cores} cores`],
    ["memory", `${bytes(memory.availableBytes)} free of ${bytes(memory.totalBytes)}`],
    ["disk", `${bytes(disk.freeBytes)} free at ${disk.folder}`],
    ...caches.map(({ name, path, bytes: size, note }) => [
      `${name} cache`,
      [path ?? "no place known", size === null ? "empty" : bytes(size), note].filter(Boolean)
        .join(", "),
    ]),
    ["limits", ""],
    ...Object.entries(e.limits as Record<string, number>)
      .filter(([name]) => !OF_PICTURES.test(name)).map(([name, n]) => [`  ${name}`, `${n}`]),
  ];
  return textTable(rows, () => true);
}

/** The checks for people. */
export function formatChecks(checks: Checks): string {
  const error = (x: number | null) =>
    x === null ? "-" : Number.isFinite(x) ? x.toExponential(1) : "NaN";
  const rows = checks.kernels.map(({ op, shape, kernels, output, gradients, ok, note }) => [
    ...[op, shape, kernels, error(output)],
    gradients.some((x) => x !== null) ? gradients.map(error).join(" ") : "-",
    [ok ? "ok" : "FAILED", note].filter(Boolean).join(": "),
  ]);
  const header = ["op", "shape", "kernels", "output", "gradients", ""];
  const count = checks.kernels.length + checks.device.length;
  const failed = failures(checks);
  return [
    "Largest relative errors against float64, of outputs and of each input's gradient:",
    textTable([header, ...rows], () => true),
    "",
    textTable(
      checks.device.map(({ name, ok, note }) => [name, ok ? "ok" : "FAILED", note]),
      () => true,
    ),
    "",
    `${count} checks in ${checks.seconds.toFixed(1)} s: ` +
    (failed ? `${failed} FAILED` : "all passed"),
  ].join("\n");
}
