/**
 * `deno task bench [suite] [key=value ...]`
 *
 * @module
 */
import { exitCodes, runCommand, splitArguments } from "./command.ts";
import { type ConfigInput, fields, parseOverrides } from "../config/config.ts";
import { UserError } from "../errors.ts";
import { integer, parseValue } from "../config/fields.ts";
import { openDevice } from "../open_device.ts";
import { suggest } from "../text/suggest.ts";
import { decodeSuite } from "../bench/decode.ts";
import { kernelSuite } from "../bench/kernels.ts";
import { peerSuite } from "../bench/peer.ts";
import { type BenchOptions, type BenchResult, formatResults, type Suite } from "../bench/result.ts";
import { startupSuite } from "../bench/startup.ts";
import { stepSuite } from "../bench/step.ts";

const HELP = `usage: deno task bench [suite ...] [key=value ...] [--json]

  deno task bench step preset=tiny,small stages=dense,sparse
  deno task bench step preset=base recompute=true
  deno task bench decode preset=tiny contexts=16,256

Suites (all of them if none is named):
  kernels   single kernels, by GPU timestamps, as a share of the adapter's measured ceilings
  step      a training step of each preset and stage
  decode    a new token, on caches and by whole windows, dense and sparse, with the bytes of the
            cache that it reads
  peer      the small transformer that other engines were timed with, loss read every step
  startup   from the start of a process to its first finished step

Keys:
  preset    of step, decode and startup, with commas between [those that suit the device]
  stages    of step and decode, with commas between [all of the recipe; one dense, one sparse]
  contexts  of decode, tokens of a sequence, with commas between [1/8, 1/2 and all of seqLen]
  steps     timed steps or tokens, of step, decode and peer [as many as are enough]
  runs      of startup, processes for a preset [3]
  device    of all
  others    of the model's configuration, of step, decode and startup; see deno task train --help

--json prints one line for each result. Times are medians, and the least of all samples.`;

const suites: Readonly<
  Record<string, {
    run: Suite;
    /** Keys of this command that it takes. */
    keys: readonly string[];
    /** Whether it takes keys of the model's configuration. */
    takesModel: boolean;
  }>
> = {
  kernels: { run: kernelSuite, keys: [], takesModel: false },
  step: { run: stepSuite, keys: ["preset", "stages", "steps"], takesModel: true },
  decode: {
    run: decodeSuite,
    keys: ["preset", "stages", "contexts", "steps"],
    takesModel: true,
  },
  peer: { run: peerSuite, keys: ["steps"], takesModel: false },
  startup: { run: startupSuite, keys: ["preset", "runs"], takesModel: true },
};
/** Keys of this command, the others are of the model's configuration. */
const ownKeys = [...new Set(Object.values(suites).flatMap(({ keys }) => keys))];

async function main(args: string[]): Promise<number> {
  const { flags, pairs, words } = splitArguments(args, ["--json"]);
  if (flags.has("--help")) {
    console.log(HELP);
    return exitCodes.done;
  }
  for (const word of words) {
    if (Object.hasOwn(suites, word)) continue;
    const near = suggest(word, Object.keys(suites));
    throw new UserError(
      `Cannot run suite "${word}": ` +
        (near ? `did you mean ${near}?` : `the suites are ${Object.keys(suites).join(", ")}`),
    );
  }
  const names = words.length ? words : Object.keys(suites);
  requireTaken(pairs, names);
  const { options, device: wanted } = readOptions(pairs);
  const results: BenchResult[] = [];
  using device = await openDevice(wanted, { note: (line) => console.error(line) });
  for (const name of names) {
    for await (const result of suites[name].run(device, options)) {
      if (flags.has("--json")) console.log(JSON.stringify(result));
      else console.error(`${result.suite} ${result.name}: done`);
      results.push(result);
    }
  }
  if (!flags.has("--json") && results.length) {
    console.log(`${results[0].adapter}\n${formatResults(results)}`);
  }
  return exitCodes.done;
}

/** Refuses keys that would change nothing, as no suite of those to be run takes them. */
function requireTaken(pairs: readonly string[], names: readonly string[]): void {
  const run = names.map((name) => suites[name]);
  const taken = ["device", ...ownKeys.filter((key) => run.some(({ keys }) => keys.includes(key)))];
  for (const pair of pairs) {
    const key = pair.slice(0, pair.indexOf("="));
    const isTaken = taken.includes(key) ||
      !ownKeys.includes(key) && run.some(({ takesModel }) => takesModel);
    if (isTaken) continue;
    throw new UserError(
      `Cannot set ${pair} with ${names.join(" and ")}: the keys are ${taken.join(", ")}`,
    );
  }
}

/** Separates the keys of this command from those of the model. */
function readOptions(
  pairs: readonly string[],
): { options: BenchOptions; device: NonNullable<ConfigInput["device"]> } {
  const own = new Map<string, string>();
  const overrides: string[] = [];
  for (const pair of pairs) {
    const [key] = pair.split("=", 1);
    if (ownKeys.includes(key)) {
      own.set(key, pair.slice(key.length + 1));
    } else overrides.push(pair);
  }
  const { device = fields.device.default } = parseOverrides(overrides);
  const list = (key: string) => own.get(key)?.split(",") ?? [];
  const whole = (key: string, typed: string) =>
    parseValue(key, integer("run", 1, ""), typed) as number;
  const count = (key: string) => own.has(key) ? whole(key, own.get(key)!) : null;
  const contexts = list("contexts").map((typed) => whole("contexts", typed));
  const presets = list("preset");
  for (const preset of presets) parseValue("preset", fields.preset, preset);
  const [steps, runs] = [count("steps"), count("runs") ?? 3];
  const model = overrides.filter((pair) => !pair.startsWith("device="));
  const stages = list("stages");
  return { options: { presets, stages, contexts, steps, runs, overrides: model }, device };
}

if (import.meta.main) await runCommand(main);
