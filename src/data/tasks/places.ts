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
  readonly #steps: number | null;
  /** Pairs that are still to be taken. */
  #left: number;

  /**
   * Among `slots` places, `count` pairs; `steps`: how far the two are apart, null: drawn.
   *
   * @throws {UserError} if there is no room for them
   */
  constructor(
    rng: Rng,
    slots: number,
    { task, seqLen, count, steps }: {
      task: string;
      seqLen: number;
      count: number;
      steps: number | null;
    },
  ) {
    const most = mostPairs(slots, steps);
    if (count > most) {
      throw new UserError(
        `Cannot make data=${task} with numPairs=${count}: they do not fit seqLen=${seqLen}` +
          `${
            steps === null ? "" : " at this taskDistance"
          }; use numPairs=${most} or a larger seqLen`,
      );
    }
    this.#rng = rng;
    this.#isFree = Array(slots).fill(true);
    this.#steps = steps;
    this.#left = count;
  }

  /** Two places that are free; then they are not. */
  take(): { from: number; to: number } {
    const slots = this.#isFree.length;
    this.#left--;
    for (let i = 0; i < TRIES; i++) {
      const apart = this.#steps ?? Math.floor(Math.exp(this.#rng.uniform() * Math.log(slots)));
      if (apart >= slots) continue;
      const pair = this.#mark(this.#rng.below(slots - apart), apart);
      if (pair) return pair;
    }
    // Few are left: any of them.
    const free = [...this.#isFree.keys()].filter((place) => this.#isFree[place]);
    const pairs = free.flatMap((from) =>
      free
        .filter((to) => this.#steps === null ? to > from : to === from + this.#steps)
        .map((to) => ({ from, to }))
    );
    while (pairs.length) {
      const [{ from, to }] = pairs.splice(this.#rng.below(pairs.length), 1);
      const pair = this.#mark(from, to - from);
      if (pair) return pair;
    }
    throw new RangeError(`Cannot take more pairs than were asked for: ${free.length} places left`);
  }

  /** Takes two places, unless one is taken or the rest would not do for the pairs to come. */
  #mark(from: number, apart: number): { from: number; to: number } | null {
    const to = from + apart;
    if (!this.#isFree[from] || !this.#isFree[to]) return null;
    this.#isFree[from] = this.#isFree[to] = false;
    const isEnough = this.#steps === null || roomIn(this.#isFree, this.#steps) >= this.#left;
    if (isEnough) return { from, to };
    this.#isFree[from] = this.#isFree[to] = true;
    return null;
  }
}

/** The most pairs of `slots` places, each pair `steps` apart; null: any number. */
export function mostPairs(slots: number, steps: number | null): number {
  return roomIn(Array(slots).fill(true), steps);
}

/** The same of the places that are free. */
function roomIn(isFree: readonly boolean[], steps: number | null): number {
  if (steps === null) return Math.floor(isFree.filter(Boolean).length / 2);
  // From the first on, each with the one behind it: no other choice leaves more to those after it.
  const isLeft = [...isFree];
  let pairs = 0;
  for (let from = 0; from + steps < isLeft.length; from++) {
    if (!isLeft[from] || !isLeft[from + steps]) continue;
    isLeft[from + steps] = false;
    pairs++;
  }
  return pairs;
}
