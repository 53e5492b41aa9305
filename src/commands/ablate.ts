/**
 * `deno task ablate <experiment> [key=value …]`
 *
 * @module
 */
import { printIfPossible, StopSignals } from "./stop_signals.ts";
import { basename, join } from "node:path";
import { exitCodes, oneWord, requireValues, runCommand, splitArguments } from "./command.ts";
import { UserError } from "../errors.ts";
import { experimentNames, loadExperiment } from "../config/experiment.ts";
import { writeAside } from "../runs/run_folder.ts";
import { AFTER_A_RUN } from "../report/page/write.ts";
import { writeAblationReport } from "../report/ablation/ablation_report.ts";
import { planRuns, REAL_SIZE, replacements, sized } from "../ablate/plan.ts";
import { runAblation } from "../ablate/runner.ts";
import { runsCsv } from "../ablate/runs_csv.ts";
import { resultsTable } from "../ablate/table.ts";

function help(): string {
  return `usage: deno task ablate <experiment> [size=smoke] [budget=9m] [key=value ...]

  deno task ablate compression_sparsity size=smoke
  deno task ablate compression_sparsity budget=2h seeds=0,1,2
  deno task ablate my/experiment.ts profile=true

Runs all variants of an experiment with all its seeds, one after the other. The same command again
goes on where it stopped and repeats nothing that is done. Shared first stages are trained once.

  size      one of the experiment's sizes [${REAL_SIZE}]
  budget    time after which to save and stop, such as 540s, 9m or 2h [none]
  seeds     instead of the experiment's, such as 0,1,2
  name      folder under runs/ [experiment and size]
  profile   true: also measure the GPU time of the kernels in each stage

Other keys are those of deno task train, for all runs. The folder, with results.json, table.txt,
runs.csv, report.html and the run folders, is printed last. Ctrl-C saves and stops. Exit code 1:
some runs failed. Experiments: ${experimentNames().join(", ")}.`;
}

/** The keys that are the command's own. */
const OWN_KEYS = ["size", "budget", "seeds", "name"] as const;

async function main(args: string[]): Promise<number> {
  const started = performance.now();
  const { flags, pairs, words } = splitArguments(args, []);
  if (flags.has("--help")) {
    console.log(help());
    return exitCodes.done;
  }
  printIfPossible();
  requireValues(words, OWN_KEYS);
  const word = oneWord(words, { verb: "run", what: "one experiment", help: help() });
  const { own, rest } = takeOwn(pairs);
  const size = own.size ?? REAL_SIZE;
  const experiment = sized(await loadExperiment(word), size);
  const seeds = own.seeds === undefined ? {} : { seeds: own.seeds.split(",").map(readSeed) };
  const plan = planRuns({ ...experiment, ...seeds }, rest);
  const name = basename(word, ".ts");
  const folder = join("runs", own.name ?? (size === REAL_SIZE ? name : `${name}_${size}`));
  const budgetMs = own.budget === undefined ? Infinity : readBudget(own.budget);

  for (const word of replacements(plan)) {
    console.error(`note: all runs have ${word} as the experiment says`);
  }
  using signals = new StopSignals(() =>
    console.error("\ninterrupted: saving, again to stop at once")
  );
  const shouldStop = () => signals.isAsked || performance.now() - started > budgetMs;
  const results = await runAblation({
    experiment: name,
    size,
    plan,
    folder,
    argv: args,
    shouldStop,
  });

  const table = resultsTable(results);
  writeAside(join(folder, "table.txt"), `${table}\n`);
  writeAside(join(folder, "runs.csv"), runsCsv(results));
  console.log(table);
  try {
    if (!signals.isAsked) await writeAblationReport(folder, { seconds: AFTER_A_RUN });
  } catch (error) {
    // The results are there, whatever is wrong with their report.
    const reason = error instanceof Error ? error.message : String(error);
    console.error(`no report yet: ${reason}; later: deno task report ${folder}`);
  }
  const left = results.runs.filter(({ status }) => status === "missing").length;
  if (left) {
    console.error(`${left} of ${results.runs.length} runs are left: the same command goes on`);
  }
  console.log(folder);
  if (signals.isAsked) return exitCodes.interrupted;
  const isFailed = results.runs.some(({ status }) => status === "failed");
  return isFailed ? exitCodes.failed : exitCodes.done;
}

function takeOwn(pairs: readonly string[]): {
  own: Partial<Record<typeof OWN_KEYS[number], string>>;
  rest: string[];
} {
  const own: Partial<Record<typeof OWN_KEYS[number], string>> = {};
  const rest = pairs.filter((pair) => {
    const at = pair.indexOf("=");
    const key = OWN_KEYS.find((name) => name === pair.slice(0, at));
    if (key) own[key] = pair.slice(at + 1);
    return !key;
  });
  if (own.name !== undefined && !/^\w[\w.+-]*$/.test(own.name)) {
    throw new UserError(
      `Cannot set name="${own.name}": use letters, digits and . _ + - only, no folders`,
    );
  }
  return { own, rest };
}

function readSeed(word: string): number {
  if (/^\d+$/.test(word)) return Number(word);
  throw new UserError(`Cannot set seeds=${word}: expected whole numbers, such as seeds=0,1,2`);
}

/** Milliseconds. */
function readBudget(word: string): number {
  const [, amount, unit] = word.match(/^(\d+(?:\.\d+)?)(s|m|h)$/) ?? [];
  if (amount) return Number(amount) * { s: 1e3, m: 6e4, h: 3.6e6 }[unit as "s" | "m" | "h"];
  throw new UserError(`Cannot set budget=${word}: expected a time such as 540s, 9m or 2h`);
}

if (import.meta.main) await runCommand(main);
