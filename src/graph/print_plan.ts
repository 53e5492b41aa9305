/**
 * A recorded program as text, and what the memory planner makes of it.
 *
 * @module
 */
import type { Matrix, Storage } from "../ops/op.ts";
import { textTable } from "../text/text_table.ts";
import { formatBytes } from "../text/units.ts";
import { planMemory } from "./memory.ts";
import { lifetimes, type PlanSource } from "./plan_source.ts";

/** Memory of a program's temporaries, in bytes. */
export interface PlannedMemory {
  /** What they would take without sharing. */
  readonly temporaries: number;
  /** What their slots take. */
  readonly slots: number;
}

/** What the planner saves by letting temporaries that do not live at once share memory. */
export function plannedMemory(source: PlanSource): PlannedMemory {
  const spans = lifetimes(source);
  const bytes = (sizes: readonly { size: number }[]) =>
    sizes.reduce((sum, { size }) => sum + size * 4, 0);
  return { temporaries: bytes([...spans.keys()]), slots: bytes(planMemory(spans)) };
}

/** `temporaries of 12 MiB in 5 MiB of slots: the planner saves 7 MiB`. */
export function describeMemory({ temporaries, slots }: PlannedMemory): string {
  return `temporaries of ${formatBytes(temporaries)} in ${formatBytes(slots)} of slots: ` +
    `the planner saves ${formatBytes(temporaries - slots)}`;
}

/**
 * A line for each dispatch: what it is for, its kernel with its shape, its workgroups, the bytes
 * that it must move, and where its operands lie: `#3` is a slot that temporaries take turns in,
 * other memory has its name. The last line tells what the planner saves.
 */
export function printPlan(source: PlanSource): string {
  const slots = planMemory(lifetimes(source));
  const slotOf = new Map<Storage, number>();
  slots.forEach(({ storages }, i) => storages.forEach((storage) => slotOf.set(storage, i)));
  const place = ({ storage, rows, cols }: Matrix) => {
    const slot = slotOf.get(storage);
    return `${slot === undefined ? storage.label : `#${slot}`} ${rows}x${cols}`;
  };
  const rows = source.dispatches.map(({ op, kernel, operands }, i) => [
    String(i),
    op,
    kernel.label,
    kernel.grid.join("x"),
    formatBytes(kernel.bytes),
    kernel.access.map((access, i) => `${access === "read" ? "" : "→ "}${place(operands[i])}`)
      .join(", "),
  ]);
  const table = textTable(
    [["", "op", "kernel", "groups", "bytes", "operands"], ...rows],
    (column) => column !== 0 && column !== 4,
  );
  return `${table}\n${describeMemory(plannedMemory(source))}`;
}
