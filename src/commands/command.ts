/**
 * What all commands share: exit codes and errors for people.
 *
 * @module
 */
import { GpuError, MemoryError, UserError, WriteError } from "../errors.ts";
import { NotFinite } from "../model/finite.ts";
import { suggest } from "../text/suggest.ts";

/** Exit codes of all commands. */
export const exitCodes = {
  done: 0,
  /** A failed run or check. */
  failed: 1,
  /** Wrong usage, configuration or input. */
  usage: 2,
  /** Interrupted, after saving. */
  interrupted: 130,
} as const;

/**
 * Runs a command and exits with its code. A {@linkcode UserError} becomes one line on stderr and
 * exit code 2; any other error is a failure (1), also one line where a number is not finite.
 */
export async function runCommand(main: (args: string[]) => Promise<number>): Promise<never> {
  let code: number;
  try {
    code = await main(Deno.args);
  } catch (error) {
    if (error instanceof UserError || error instanceof MemoryError) {
      const isMemory = error instanceof MemoryError;
      const message = isMemory
        ? `Cannot fit this on the adapter: ${error.message}; lower batchSize or seqLen`
        : error.message;
      console.error(`error: ${message}`);
      code = exitCodes.usage;
    } else if (error instanceof WriteError || error instanceof GpuError) {
      const isBare = error instanceof GpuError && !error.cause;
      const wayOut = isBare ? "; start the command again, or look with deno task doctor" : "";
      console.error(`error: ${error.message}${wayOut}`);
      code = exitCodes.failed;
    } else if (error instanceof NotFinite) {
      console.error(`error: Cannot go on: ${error.message}: the model's numbers overflow`);
      code = exitCodes.failed;
    } else {
      console.error(error instanceof Error ? error.stack ?? error.message : error);
      code = exitCodes.failed;
    }
  }
  Deno.exit(code);
}

/** Splits arguments into flags, `key=value` words and the rest. */
export function splitArguments(
  args: readonly string[],
  flags: readonly string[],
): { flags: Set<string>; pairs: string[]; words: string[] } {
  const out = { flags: new Set<string>(), pairs: [] as string[], words: [] as string[] };
  for (const arg of args) {
    if (arg === "-h" || arg === "--help") out.flags.add("--help");
    else if (flags.includes(arg)) out.flags.add(arg);
    else if (/^-+[^=]*$/.test(arg)) {
      const known = ["--help", ...flags].join(", ");
      throw new UserError(`Cannot read "${arg}": the options are ${known}`);
    } else if (arg.includes("=")) out.pairs.push(arg);
    else out.words.push(arg);
  }
  return out;
}

/** What a command works on. */
export interface Wanted {
  /** What it does with that, e.g. `evaluate`. */
  readonly verb: string;
  /** How many of what, e.g. `one run folder`. */
  readonly what: string;
  /** The command's help. */
  readonly help: string;
}

/**
 * Refuses a command line that names nothing to work on, after its help.
 *
 * @throws {UserError} saying what is missing
 */
export function requireWords(words: readonly string[], { verb, what, help }: Wanted): void {
  if (words.length) return;
  console.error(`${help}\n`);
  throw new UserError(`Cannot ${verb} nothing: give ${what}`);
}

/**
 * The word of a command that works on one thing.
 *
 * @throws {UserError} if there is none, or more than one
 */
export function oneWord(words: readonly string[], wanted: Wanted): string {
  requireWords(words, wanted);
  const [word, ...more] = words;
  if (!more.length) return word;
  const { verb, what } = wanted;
  throw new UserError(`Cannot ${verb} ${words.join(" and ")}: give ${what}; see --help`);
}

/**
 * Refuses a word that is a key without its value.
 *
 * @throws {UserError} naming the key
 */
export function requireValues(words: readonly string[], keys: readonly string[]): void {
  const key = words.find((word) => keys.includes(word));
  if (key !== undefined) throw new UserError(`Cannot set ${key} to nothing: write ${key}=…`);
}

/**
 * Refuses `key=value` words whose key a command does not take.
 *
 * @throws {UserError} naming the key, and the nearest one or all there are
 */
export function requireKeys(
  command: string,
  pairs: readonly string[],
  keys: readonly string[],
): void {
  for (const pair of pairs) {
    const key = pair.slice(0, pair.indexOf("="));
    if (keys.includes(key)) continue;
    const near = suggest(key, keys);
    throw new UserError(
      `Cannot set "${key}": ` +
        (near ? `did you mean ${near}?` : `${command} takes ${keys.join(", ")}`),
    );
  }
}
