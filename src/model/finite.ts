/**
 * Numbers that must be finite: what is measured, weights, AdamW's moments.
 *
 * @module
 */
import type { EngineState, Metrics } from "../engine.ts";

/** A measured number, or one of a tensor, is NaN or infinite. */
export class NotFinite extends Error {
  /** Tells it from other errors where classes are not compared. */
  override readonly name = "NotFinite";

  /** Of what, e.g. `val/loss`, and its value. */
  constructor(what: string, value: number) {
    super(`${what} is ${value}`);
  }
}

/**
 * Hands on what was measured.
 *
 * @throws {NotFinite} naming the first number that is none
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { NotFinite, requireFinite } from "./finite.ts";
 *
 * assert.deepEqual(requireFinite({ "val/loss": 2.5 }), { "val/loss": 2.5 });
 * assert.throws(() => requireFinite({ "val/loss": NaN }), NotFinite);
 * ```
 */
export function requireFinite(values: Metrics): Metrics {
  for (const [name, value] of Object.entries(values)) {
    if (!Number.isFinite(value)) throw new NotFinite(name, value);
  }
  return values;
}

/** Index of the first value that is NaN or infinite; -1 where all are finite. */
export function firstNotFinite(values: ArrayLike<number>): number {
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) return i;
  return -1;
}

/** A value of a tensor that is not finite, for people; null where all values of all are. */
export function damageOf({ parameters, m, v }: EngineState): string | null {
  const parts = [["", parameters], ["first moment of ", m], ["second moment of ", v]] as const;
  for (const [what, tensors] of parts) {
    for (const [name, values] of tensors) {
      const at = firstNotFinite(values);
      if (at < 0) continue;
      const layer = name.match(/\.layers\.(\d+)\./)?.[1];
      const where = layer === undefined ? "outside the layers" : `layer ${layer}`;
      return `${what}${name} (${where}) holds ${values[at]} at ${at}`;
    }
  }
  return null;
}
