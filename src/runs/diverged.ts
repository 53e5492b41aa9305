/**
 * Runs that cannot go on because a number is not finite any more.
 *
 * @module
 */
import type { Engine, EngineState } from "../engine.ts";
import { damageOf, NotFinite } from "../model/finite.ts";
import type { Stage } from "../config/stage_fields.ts";

/** A run that cannot go on: a loss, a weight or a moment is not a finite number any more. */
export class Diverged extends Error {
  /** Tells it from other errors where classes are not compared. */
  override readonly name = "Diverged";
  /** The first step whose numbers are not finite. */
  readonly step: number;

  /** After a step of a stage, with what shows it. */
  constructor(step: number, stage: Stage, signs: readonly string[]) {
    super(
      `Training diverged at step ${step} (stage ${stage.name}): ${signs.join(", ")}; ` +
        "lower lr or clip",
    );
    this.step = step;
  }
}

/**
 * Refuses a state that cannot be gone on from, so that it never takes the place of a good one.
 *
 * @throws {Diverged} naming step, stage, layer and tensor
 */
export function requireSound(
  state: EngineState,
  { step, stage }: { step: number; stage: Stage },
): void {
  const damage = damageOf(state);
  if (damage) throw new Diverged(step, stage, [damage]);
}

/**
 * What an error during training means: a number that is not finite ends the run, and the tensor
 * that is to blame is looked for. Other errors stay what they are.
 */
export async function explain(
  error: unknown,
  { engine, stage, step }: { engine: Engine; stage: Stage; step: number },
): Promise<unknown> {
  if (!(error instanceof NotFinite)) return error;
  const damage = damageOf(await engine.exportState()) ?? "all weights and moments are finite";
  return new Diverged(step, stage, [error.message, damage]);
}
