/** A kernel as a driver runs it that ends loops. */
import type { Kernel } from "../../src/kernels/wgsl/kernel.ts";

/** The kernel with the loops of each invocation ended after so many rounds together. */
export function endLoopsAfter(kernel: Kernel, iterations: number): Kernel {
  const { code } = kernel;
  const start = "loop_rounds += 1u; if (loop_rounds > LOOP_ROUNDS) { break; }";
  let out = "";
  let done = 0;
  for (const { index, 0: word } of code.matchAll(/\b(for|while) ?\(/g)) {
    const open = endOfParentheses(code, index + word.length - 1) + 1;
    const brace = code.indexOf("{", open);
    out += code.slice(done, brace + 1) + start;
    done = brace + 1;
  }
  if (done === 0) return kernel;
  return {
    ...kernel,
    code: `const LOOP_ROUNDS = ${iterations}u;
var<private> loop_rounds: u32;
${out}${code.slice(done)}`,
  };
}

/** Index of the parenthesis that closes the one at `open`. */
function endOfParentheses(code: string, open: number): number {
  let depth = 0;
  for (let i = open; i < code.length; i++) {
    if (code[i] === "(") depth++;
    if (code[i] === ")" && --depth === 0) return i;
  }
  throw new RangeError(`Cannot find the end of ${code.slice(open, open + 40)}`);
}
