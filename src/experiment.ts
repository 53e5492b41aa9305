/**
 * Experiments: files in `experiments/` that name a question and the configuration to answer it.
 *
 * @module
 */
import { suggest } from "./suggest.ts";
import type { ConfigInput } from "./config.ts";
import { UserError } from "./errors.ts";

/** What a file in `experiments/` exports as `experiment`. */
export interface Experiment {
  /** The question it answers, in one sentence. */
  readonly question: string;
  /** What differs from the preset's defaults, each with its why. */
  readonly config: ConfigInput;
}

const folder = new URL("../experiments/", import.meta.url);

/** Names of all experiments. */
export function experimentNames(): string[] {
  return [...Deno.readDirSync(folder)]
    .filter(({ name }) => name.endsWith(".ts"))
    .map(({ name }) => name.slice(0, -3))
    .sort();
}

/**
 * Loads `experiments/<name>.ts`.
 *
 * @throws {UserError} if there is none of that name
 *
 * @example
 * ```ts
 * import { resolveConfig } from "./config.ts";
 * import { loadExperiment } from "./experiment.ts";
 *
 * const { question, config } = await loadExperiment("quickstart");
 * console.log(question, resolveConfig(config, ["steps=10"]).steps);
 * ```
 */
export async function loadExperiment(name: string): Promise<Experiment> {
  const names = experimentNames();
  if (!names.includes(name)) {
    const near = suggest(name, names);
    throw new UserError(
      `Cannot find experiment "${name}": ${near ? `did you mean ${near}? ` : ""}` +
        `There are ${names.join(", ")}`,
    );
  }
  return (await import(new URL(`${name}.ts`, folder).href)).experiment;
}
