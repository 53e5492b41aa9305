import { copy, type CopyOptions } from "./copy.ts";
import { needle, type NeedleOptions } from "./needle.ts";
import { recall, type RecallOptions } from "./recall.ts";
import type { Task } from "./task.ts";

/** Options of all tasks together; each takes its own. */
export type TaskOptions = CopyOptions & RecallOptions & NeedleOptions;

/** The generated tasks by name. To add one, write its file and enter it here. */
export const tasks: Readonly<Record<string, Task<Partial<TaskOptions>>>> = {
  copy,
  recall,
  needle,
};
