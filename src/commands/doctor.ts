/**
 * `deno task doctor [key=value ...]`
 *
 * @module
 */
import { exitCodes, requireKeys, requireValues, runCommand, splitArguments } from "./command.ts";
import { UserError } from "../errors.ts";
import { integer, parseValue } from "../config/fields.ts";
import { Gpu } from "../webgpu/device/device.ts";
import { findFacts } from "../doctor/facts.ts";
import { checkAdapter, failures, formatChecks, formatFacts } from "../doctor/checkup.ts";

const HELP = `usage: deno task doctor [key=value ...] [--json]

  deno task doctor                 # what to paste into a bug report
  deno task doctor kernels=all     # the kernels of other adapters too

Prints adapter, driver, limits, features, versions, memory, disk and caches, and checks every
kernel family on this adapter: outputs and gradients on random inputs, in memory full of NaN,
against float64; reading back, long loops, compiling, and whether training gives the same bits
twice. Needs no network and no npm packages (deno task itself asks for those of deno.json once;
deno run -A src/commands/doctor.ts does not), and changes no file of yours.

Keys:
  kernels   own: those that this adapter trains with, all: those for GPUs and for software
            [all on a GPU, own in software, where compiling all takes a minute]
  seed      of the random inputs [a new one each time]

--json prints one object. The exit code is 0 if all checks passed, 1 if one failed or there is no
adapter to check, 2 for wrong usage.`;

const keys = ["kernels", "seed"];

async function main(args: string[]): Promise<number> {
  const { flags, pairs, words } = splitArguments(args, ["--json"]);
  if (flags.has("--help")) {
    console.log(HELP);
    return exitCodes.done;
  }
  const typed = readKeys(pairs, words);
  const seed = typed.seed ?? Math.floor(Math.random() * 2 ** 32);
  using gpu = await Gpu.open();
  const facts = findFacts(gpu, seed, args);
  if (!flags.has("--json")) console.log(`${formatFacts(facts)}\n`);
  const kernels = typed.kernels ?? (gpu?.capabilities.software ? "own" : "all");
  const checks = gpu && await checkAdapter({
    ...{ seed, kernels },
    onCase: ({ op, kernels, ok }) => {
      if (!ok) console.error(`${op}, kernels for ${kernels}: FAILED`);
    },
  });
  if (flags.has("--json")) console.log(JSON.stringify({ seed, ...facts, checks }));
  else if (checks) {
    console.log(
      `${formatChecks(checks)} (again: deno task doctor kernels=${kernels} seed=${seed})`,
    );
  }
  if (!checks) {
    console.error(
      "No WebGPU adapter to check: a Vulkan driver gives one (in software: " +
        "apt-get install mesa-vulkan-drivers)",
    );
  }
  return checks && failures(checks) === 0 ? exitCodes.done : exitCodes.failed;
}

function readKeys(
  pairs: readonly string[],
  words: readonly string[],
): { kernels?: "own" | "all"; seed?: number } {
  requireKeys("doctor", pairs, keys);
  requireValues(words, keys);
  if (words.length) {
    throw new UserError(`Cannot look at ${words.join(" ")}: doctor takes keys alone; see --help`);
  }
  const typed = new Map(pairs.map((pair) => {
    const end = pair.indexOf("=");
    return [pair.slice(0, end), pair.slice(end + 1)];
  }));
  const kernels = typed.get("kernels");
  if (kernels !== undefined && kernels !== "own" && kernels !== "all") {
    throw new UserError(`Cannot use kernels=${kernels}: use own or all`);
  }
  const seed = typed.get("seed");
  const field = integer("run", 0, "");
  return { kernels, seed: seed === undefined ? seed : parseValue("seed", field, seed) as number };
}

if (import.meta.main) await runCommand(main);
