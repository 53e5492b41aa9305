/**
 * Metrics of training steps: each step's row is copied into a ring on the device, from where all
 * new rows are read at once.
 *
 * @module
 */
import type { Metrics } from "../../engine.ts";
import { recordMetrics } from "../../kernels/step/record_metrics.ts";
import { columnsOf, matrixAt } from "../../ops/matrix.ts";
import type { Matrix } from "../../ops/op.ts";
import type { EngineMemory } from "./engine_memory.ts";
import type { PlanRecorder } from "../../graph/plan_recorder.ts";
import { ReadBack } from "../device/read_back.ts";
import { namedMetrics } from "./trace.ts";

/** Steps whose metrics the device keeps until they are read. */
const RING_ROWS = 1024;

/** Columns of a row. */
export interface ColumnRange {
  readonly start: number;
  readonly cols: number;
}

/** The rows of the steps since they were last read. */
export class MetricRing {
  /** `[1, n]`: the row of the step at work. */
  readonly row: Matrix;
  readonly #names: readonly string[];
  readonly #memory: EngineMemory;
  readonly #rows: Matrix;
  readonly #reader: ReadBack;
  #written = 0;
  #read = 0;

  constructor(memory: EngineMemory, names: readonly string[]) {
    const cols = names.length;
    this.#memory = memory;
    this.#names = names;
    const row = memory.allocate("metrics", cols);
    const ring = memory.allocate("metrics of all steps", RING_ROWS * cols);
    this.row = matrixAt(row, 0, { rows: 1, cols });
    this.#rows = matrixAt(ring, 0, { rows: RING_ROWS, cols });
    this.#reader = new ReadBack(memory.gpu, RING_ROWS * cols * 4);
  }

  /** Where the next step's row goes; an input of its plans. */
  get slot(): number {
    return this.#written % RING_ROWS;
  }

  /** Refuses a step whose row would overwrite one that has not been read. */
  checkRoom(): void {
    if (this.#written - this.#read >= RING_ROWS) {
      throw new Error(`Cannot keep more than ${RING_ROWS} steps of metrics: read them in between`);
    }
  }

  /** The step has been submitted. */
  advance(): void {
    this.#written++;
  }

  /** Appends the copy of some columns into `slot`, or their sum with what is there. */
  record(recorder: PlanRecorder, slot: Matrix, { start, cols }: ColumnRange, add: boolean): void {
    recorder.scope = "metrics";
    const row = columnsOf(this.row, start, cols);
    const ring = columnsOf(this.#rows, start, cols);
    recorder.dispatch(recordMetrics({ row, ring, slot, add }));
  }

  /** All rows since the last call, oldest first. */
  async read(): Promise<Metrics[]> {
    const width = this.#names.length;
    const rows: Metrics[] = [];
    const ring = this.#memory.buffer(this.#rows.storage);
    while (this.#read < this.#written) {
      const first = this.#read % RING_ROWS;
      const count = Math.min(this.#written - this.#read, RING_ROWS - first);
      const bytes = count * width * 4;
      const data = new Float32Array(await this.#reader.read(ring, first * width * 4, bytes));
      for (let i = 0; i < count; i++) {
        rows.push(namedMetrics(this.#names, data.subarray(i * width, (i + 1) * width)));
      }
      this.#read += count;
    }
    return rows;
  }

  destroy(): void {
    this.#reader.destroy();
  }
}
