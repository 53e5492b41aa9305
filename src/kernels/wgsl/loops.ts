/**
 * How far the loops of a kernel may go.
 *
 * @module
 */

/**
 * Most rounds of all loops of an invocation together. Mesa's llvmpipe ends them after 65 535,
 * without an error, and what they were to sum is then silently wrong.
 */
export const MOST_ITERATIONS = 60_000;

/** Rounds of a loop over `count` things, `step` at a time. */
export function rounds(count: number, step: number): number {
  return Math.ceil(count / step);
}

/**
 * Keeps the bound for a kernel that is made.
 *
 * @param code its WGSL
 * @param iterations most rounds of an invocation's loops together, if it has any
 * @throws {TypeError} if there are loops, and nothing is said of how far they go
 * @throws {RangeError} if they go too far
 */
export function requireShortLoops(
  { label, code, iterations }: { label: string; code: string; iterations?: number },
): void {
  if (iterations === undefined) {
    if (!/\b(for|while|loop)\s*[({]/.test(code)) return;
    throw new TypeError(`Kernel ${label} has loops: say how many iterations they make at most`);
  }
  if (iterations <= MOST_ITERATIONS) return;
  throw new RangeError(
    `Cannot run ${label}: an invocation would loop ${iterations} times, and drivers end loops ` +
      `silently after 65535; take smaller sizes`,
  );
}
