import { Rng } from "../../rng.ts";

/** Random numbers for the inputs of checks, of one seed. */
export class Random {
  readonly #rng: Rng;

  constructor(seed: number, stream: string) {
    this.#rng = new Rng(seed, stream);
  }

  /** A number from 0 to 1. */
  uniform(): number {
    return this.#rng.uniform();
  }

  /** Standard normal numbers. */
  normal(count: number): Float32Array {
    return Float32Array.from({ length: count }, () => this.#rng.normal());
  }

  /** Whole numbers from 0 to `limit` - 1. */
  below(count: number, limit: number): Int32Array {
    return Int32Array.from({ length: count }, () => this.#rng.below(limit));
  }

  /** Whole numbers from -2 to 2: exact sums of products, and many that are equal. */
  coarse(count: number): Float32Array {
    return Float32Array.from({ length: count }, () => this.#rng.below(5) - 2);
  }
}
