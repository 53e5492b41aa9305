import { copy, type CopyOptions } from "./copy.ts";
import { counting } from "./counting.ts";
import { dyck, type DyckOptions } from "./dyck.ts";
import { induction, type InductionOptions } from "./induction.ts";
import { mqar, type MqarOptions } from "./mqar.ts";
import { multihop, type MultihopOptions } from "./multihop.ts";
import { needle, type NeedleOptions } from "./needle.ts";
import { recall, type RecallOptions } from "./recall.ts";
import { selectiveCopy, type SelectiveCopyOptions } from "./selective_copy.ts";
import type { Task } from "./task.ts";

/** Options of all tasks together; each takes its own. */
export type TaskOptions =
  & CopyOptions
  & RecallOptions
  & NeedleOptions
  & MqarOptions
  & InductionOptions
  & MultihopOptions
  & SelectiveCopyOptions
  & DyckOptions;

/**
 * The generated tasks by name. To add one, write its file and enter it here, and its name in
 * `taskNames`.
 */
export const tasks: Readonly<Record<string, Task<Partial<TaskOptions>>>> = {
  copy,
  recall,
  needle,
  mqar,
  induction,
  multihop,
  selectiveCopy,
  counting,
  dyck,
};

/**
 * A sequence of a task as text, its symbols by name: `k3 v1 . . k3`.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { taskText } from "./tasks.ts";
 *
 * assert.equal(taskText("copy", [5, 3, 0, 5, 3], { taskVocab: 8 }), "s3 s1 | s3 s1");
 * ```
 */
export function taskText(
  data: string,
  tokens: Iterable<number>,
  options: Partial<TaskOptions>,
): string {
  const { [data]: task } = tasks;
  const all = { ...task.defaults, ...options };
  return Array.from(tokens, (id) => task.symbol(id, all)).join(" ");
}
