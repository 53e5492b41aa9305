/**
 * Waiting for what may never come: packages from a network that drops all it is sent.
 *
 * @module
 */

/**
 * What `load` gives, if it does within a time. What comes later is thrown away: a fetch cannot be
 * called back, but a command that exits leaves it behind.
 *
 * @param seconds time to wait
 * @throws {Error} `nothing has arrived within … s`, or whatever `load` throws
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { within } from "./patience.ts";
 *
 * assert.equal(await within(1, () => Promise.resolve(7)), 7);
 * await assert.rejects(within(0.01, () => new Promise(() => {})), /within 0\.01 s/);
 * ```
 */
export async function within<T>(seconds: number, load: () => Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    const error = new Error(`nothing has arrived within ${seconds} s`);
    timer = setTimeout(() => reject(error), 1000 * seconds);
  });
  try {
    return await Promise.race([load(), late]);
  } finally {
    clearTimeout(timer);
  }
}
