/**
 * Steps that were never done, because the criterion of their stage was met before.
 *
 * @module
 */
import { join } from "node:path";
import type { StageSpan } from "../config/stages.ts";
import { readMetrics } from "../runs/run_folder.ts";

/** How many steps a run has left out so far. */
export class SkippedSteps {
  #count = 0;

  /** Of the stages that are over, by the log of the run. */
  constructor(run: string, spans: readonly StageSpan[]) {
    const ends = new Map(spans.map((span) => [span.end, span]));
    if (spans.every(({ stage }) => stage.until === null)) return;
    for (const { step, "until/steps": steps } of readMetrics(join(run, "metrics.jsonl"))) {
      const span = ends.get(step!);
      if (span && typeof steps === "number") this.#count += span.stage.steps - steps;
    }
  }

  /** All of them. */
  get count(): number {
    return this.#count;
  }

  /** At the end of a stage. */
  add(steps: number): void {
    this.#count += steps;
  }
}
