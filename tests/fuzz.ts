/**
 * `deno task fuzz [minutes=…] [only=name,name] [seed=…] [--json]`
 *
 * @module
 */
import {
  exitCodes,
  requireKeys,
  requireValues,
  runCommand,
  splitArguments,
} from "../src/commands/command.ts";
import { UserError } from "../src/errors.ts";
import { integer, number, parseValue } from "../src/config/fields.ts";
import { suggest } from "../src/text/suggest.ts";
import { fuzzers } from "./fuzz/all.ts";
import { campaign, type Tally } from "./fuzz/campaign.ts";
import type { Fuzzer } from "./fuzz/fuzzer.ts";

const HELP = `usage: deno task fuzz [minutes=1] [only=name,name] [seed=1] [--json]

Feeds damaged and made-up inputs to everything that reads some. Each must be taken, or refused with
one line; exit code 1 if one is not. A failure prints the seed that brings it back:
deno task fuzz only=<name> seed=<seed>

  minutes   of all fuzzers together [1]
  only      which, with commas between: ${fuzzers.map(({ name }) => name).join(", ")} [all]
  seed      of the first round [1]

--json prints one line for each fuzzer.`;

/** Longest input or error that is printed, in characters. */
const MOST_PRINTED = 2000;

async function main(args: string[]): Promise<number> {
  const { flags, pairs, words } = splitArguments(args, ["--json"]);
  if (flags.has("--help")) {
    console.log(HELP);
    return exitCodes.done;
  }
  const keys = ["minutes", "only", "seed"];
  requireKeys("fuzz", pairs, keys);
  requireValues(words, keys);
  if (words.length) throw new UserError(`Cannot fuzz "${words[0]}": write only=${words[0]}`);
  const typed = new Map(pairs.map((pair) => pair.split(/=(.*)/s, 2) as [string, string]));
  const fields = { minutes: number("run", 1, ""), seed: integer("run", 1, "", { min: 0 }) };
  const numberOf = (key: keyof typeof fields) =>
    Number(parseValue(key, fields[key], typed.get(key) ?? String(fields[key].default)));
  const chosen = typed.has("only") ? typed.get("only")!.split(",").map(fuzzerOf) : fuzzers;
  const milliseconds = numberOf("minutes") * 60_000 / chosen.length;
  let failed = 0;
  for (const fuzzer of chosen) {
    const tally = await campaign(fuzzer, { seed: numberOf("seed"), milliseconds });
    console.log(flags.has("--json") ? JSON.stringify(tally) : describe(tally));
    failed += tally.failed;
  }
  return failed ? exitCodes.failed : exitCodes.done;
}

function fuzzerOf(name: string): Fuzzer {
  const fuzzer = fuzzers.find((each) => each.name === name);
  if (fuzzer) return fuzzer;
  const names = fuzzers.map((each) => each.name);
  const near = suggest(name, names);
  throw new UserError(
    `Cannot fuzz "${name}": ${near ? `did you mean ${near}?` : `there are ${names.join(", ")}`}`,
  );
}

function describe({ name, cases, failed, failures }: Tally): string {
  const lines = [`${name}: ${cases} cases, ${failed} unclean`];
  for (const { seed, input, error } of failures) {
    lines.push(`  deno task fuzz only=${name} seed=${seed}`);
    lines.push(`  input: ${input.slice(0, MOST_PRINTED)}`, `  ${error.slice(0, MOST_PRINTED)}`);
  }
  return lines.join("\n");
}

if (import.meta.main) await runCommand(main);
