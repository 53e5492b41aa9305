/**
 * `deno task mutants [count=…] [seed=…] [only=…] [seconds=…] [out=…]`
 *
 * @module
 */
import { dirname, join } from "node:path";
import {
  exitCodes,
  requireKeys,
  requireValues,
  runCommand,
  splitArguments,
} from "../src/commands/command.ts";
import { integer, parseValue } from "../src/config/fields.ts";
import { UserError } from "../src/errors.ts";
import { readText } from "../src/files/files.ts";
import { Rng } from "../src/rng.ts";
import { lineOf, type Mutant, mutantsOf, plant } from "./mutants/plant.ts";
import { readTree, testsOf } from "./mutants/reach.ts";
import { TestRunner, type Verdict } from "./mutants/run_tests.ts";

const HELP = `usage: deno task mutants [key=value ...]

  deno task mutants count=100 seed=1 only=src/train

Plants one small change at a time in a copy of the repository, runs the tests that reach the changed
file, nearest first, and lists the changes that none of them saw. Each verdict is a line of out=;
a later command with the same file goes on behind them.

  count     changes to plant [100]
  seed      which [1]
  only      folder or file of src/ [src]
  seconds   of tests for each change [120]
  out       file of verdicts, JSON lines [.mutants/<seed>.jsonl]`;

/** A line of the file of verdicts. */
interface Result extends Verdict {
  readonly file: string;
  readonly line: number;
  readonly at: number;
  readonly kind: string;
  readonly before: string;
  readonly after: string;
}

async function main(args: string[]): Promise<number> {
  const { flags, pairs, words } = splitArguments(args, []);
  if (flags.has("--help")) {
    console.log(HELP);
    return exitCodes.done;
  }
  const keys = ["count", "seed", "only", "seconds", "out"];
  requireKeys("mutants", pairs, keys);
  requireValues(words, keys);
  if (words.length) throw new UserError(`Cannot plant "${words[0]}": write only=${words[0]}`);
  const typed = new Map(pairs.map((pair) => pair.split(/=(.*)/s, 2) as [string, string]));
  const numberOf = (key: string, fallback: number, min = 1) => {
    const field = integer("run", fallback, "", { min });
    return Number(parseValue(key, field, typed.get(key) ?? String(fallback)));
  };
  const [count, seed] = [numberOf("count", 100), numberOf("seed", 1, 0)];
  const out = typed.get("out") ?? `.mutants/${seed}.jsonl`;
  const root = new URL("..", import.meta.url).pathname;
  const files = readTree(root, ["src", "tests"]);
  const chosen = chooseMutants(files, { count, seed, only: typed.get("only") ?? "src" });
  await Deno.mkdir(dirname(out), { recursive: true });
  const known = (readText(out) ?? "").split("\n").slice(0, -1)
    .map((line): Result => JSON.parse(line));
  const tests = testsOf(files);
  await using runner = await TestRunner.copy(root, numberOf("seconds", 120));
  const results: Result[] = [];
  for (const mutant of chosen) {
    const source = files.get(mutant.file)!;
    const about = {
      file: mutant.file,
      at: mutant.at,
      kind: mutant.kind,
      ...lineOf(source, mutant),
    };
    const before = known.find((one) =>
      one.file === about.file && one.at === about.at && one.kind === about.kind &&
      one.before === about.before
    );
    const verdict = before ??
      await runner.judge(mutant.file, plant(source, mutant), tests.get(mutant.file) ?? []);
    const result = { ...about, ...verdict };
    if (!before) Deno.writeTextFileSync(out, JSON.stringify(result) + "\n", { append: true });
    results.push(result);
    console.error(`${results.length}/${chosen.length} ${result.status} ${describe(result)}`);
  }
  const survivors = results.filter(({ status }) => status === "survived");
  const killed = results.filter(({ status }) => status === "killed").length;
  console.log(
    `${results.length} mutants, ${killed} killed, ${survivors.length} survived, ` +
      `${results.length - killed - survivors.length} not judged in time`,
  );
  for (const result of survivors) {
    console.log(`${describe(result)}\n  - ${result.before}\n  + ${result.after}`);
  }
  return survivors.length ? exitCodes.failed : exitCodes.done;
}

/** Some changes of all that there are, in an order by chance. */
function chooseMutants(
  files: ReadonlyMap<string, string>,
  { count, seed, only }: { count: number; seed: number; only: string },
): Mutant[] {
  const own = [...files].filter(([file]) =>
    file.startsWith("src/") && (file === only || file.startsWith(join(only, "/")))
  ).sort(([a], [b]) => a < b ? -1 : 1);
  const all = own.flatMap(([file, source]) => mutantsOf(file, source));
  if (!all.length) throw new UserError(`Cannot plant anything in ${only}: there is no code in it`);
  return new Rng(seed, "mutants").shuffle(all).slice(0, count);
}

function describe({ file, line, kind, by }: Result): string {
  return `${file}:${line} ${kind}${by ? ` (${by})` : ""}`;
}

if (import.meta.main) await runCommand(main);
