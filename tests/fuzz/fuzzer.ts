/**
 * What a fuzzer is: it makes inputs out of a seed, feeds them to a part of the program, and tells
 * which ones that part neither took nor refused with one line.
 *
 * @module
 */
import { UserError } from "../../src/errors.ts";

/** What a fuzzer found. */
export interface Findings {
  /** Inputs that were tried. */
  readonly cases: number;
  /** Those that were neither taken nor refused as a mistake of the user. */
  readonly failures: { readonly input: string; readonly error: string }[];
}

/** One kind of inputs, in a file of its own; `all.ts` lists them. */
export interface Fuzzer {
  /** What is fuzzed, e.g. `safetensors`: the word of `only=`. */
  readonly name: string;
  /**
   * Tries inputs until told to stop. The same seed makes the same inputs in the same order,
   * however many there is time for.
   *
   * @param options `until` is asked before each input, and says whether to stop
   */
  run(options: { readonly seed: number; readonly until: () => boolean }): Promise<Findings>;
}

/**
 * Tries one input.
 *
 * @returns what came out of it, or null where the input was taken, or refused with one plain line
 */
export async function unclean(action: () => unknown): Promise<string | null> {
  try {
    await action();
    return null;
  } catch (error) {
    if (error instanceof UserError) {
      return /[\n\r]/.test(error.message) ? `more than one line: ${error.message}` : null;
    }
    if (!(error instanceof Error)) return `not an Error: ${error}`;
    const cause = error.cause instanceof Error ? `\n${error.cause.stack}` : "";
    return (error.stack ?? error.message) + cause;
  }
}

/**
 * What must go well, once its input has been taken: a refusal now is as unclean as any other error.
 *
 * @throws {Error} if `action` throws
 */
export function certainly<T>(action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw new Error("what was taken before is refused", { cause: error });
  }
}
