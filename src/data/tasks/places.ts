import { UserError } from "../../errors.ts";
import type { Rng } from "../../rng.ts";

/** Draws before a place is looked for among all that are left. */
const TRIES = 64;

/**
 * Pairs of free places, each so many steps apart: by a uniform law of the logarithm, or as many as
 * were asked for.
 */
export class Places {
  readonly #rng: Rng;
  readonly #isFree: boolean[];
  readonly #about: { task: string; seqLen: number; count: number; steps: number | null };

  /** Among `slots` places; `steps`: how far the two are apart, null: drawn. */
  constructor(
    rng: Rng,
    slots: number,
    about: { task: string; seqLen: number; count: number; steps: number | null },
  ) {
    this.#rng = rng;
    this.#isFree = Array(slots).fill(true);
    this.#about = about;
  }

  /**
   * Two places that are free; then they are not.
   *
   * @throws {UserError} if there are none
   */
  take(): { from: number; to: number } {
    const slots = this.#isFree.length;
    const { steps } = this.#about;
    for (let i = 0; i < TRIES; i++) {
      const apart = steps ?? Math.floor(Math.exp(this.#rng.uniform() * Math.log(slots)));
      if (apart >= slots) continue;
      const from = this.#rng.below(slots - apart);
      if (this.#isFree[from] && this.#isFree[from + apart]) return this.#mark(from, from + apart);
    }
    // Few are left: any of them.
    const left = [...this.#isFree.keys()].filter((place) => this.#isFree[place]).flatMap((from) =>
      [...this.#isFree.keys()]
        .filter((to) => this.#isFree[to] && (steps === null ? to > from : to === from + steps))
        .map((to) => ({ from, to }))
    );
    if (!left.length) this.#refuse();
    const { from, to } = left[this.#rng.below(left.length)];
    return this.#mark(from, to);
  }

  #mark(from: number, to: number): { from: number; to: number } {
    this.#isFree[from] = this.#isFree[to] = false;
    return { from, to };
  }

  #refuse(): never {
    const { task, seqLen, count, steps } = this.#about;
    throw new UserError(
      `Cannot make data=${task} with numPairs=${count}: they do not fit seqLen=${seqLen}` +
        `${steps === null ? "" : " at this taskDistance"}; use fewer pairs or a larger seqLen`,
    );
  }
}
