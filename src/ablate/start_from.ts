/**
 * Starting a run where another one ended.
 *
 * @module
 */
import { join } from "node:path";
import type { RunConfig } from "../config/config.ts";
import type { EngineState } from "../engine.ts";
import { initialParameters, modelParameters } from "../model/parameters.ts";
import {
  type Checkpoint,
  checkpointAt,
  loadCheckpoint,
  saveCheckpoint,
} from "../runs/checkpoint.ts";
import { removeBegun } from "./run_state.ts";
import { writingLater } from "../files/files.ts";
import { pretty, writeAside } from "../runs/run_folder.ts";
import { hasTrainedIndexer, type Trunk } from "./trunks.ts";

/**
 * Makes the folder of a run as if it had trained its first stages itself: logs and checkpoints of
 * the trunk. Going on from there gives bitwise the weights of a run without trunk. The folder
 * appears as a whole or not at all.
 *
 * @param config of the run, complete, with its name
 * @param pathOf the folder of a trunk, which has been trained to its end
 */
export async function startFromTrunk(
  folder: string,
  { config, trunk, pathOf }: { config: RunConfig; trunk: Trunk; pathOf: (trunk: Trunk) => string },
): Promise<void> {
  const partial = `${folder}.partial`;
  removeBegun(partial, { isCopy: true });
  await writingLater(partial, () => Deno.mkdir(partial, { recursive: true }));
  // First, so that what a kill leaves tells that it is a run's.
  writeAside(join(partial, "config.json"), pretty({ ...config, resume: null }));
  // Later stages may start from the ends of earlier trunks.
  const chain: Trunk[] = [];
  for (let t: Trunk | null = trunk; t; t = t.parent) chain.unshift(t);
  const { logs } = await read(trunk, pathOf);
  await copyStart(pathOf(trunk), partial, "metrics.jsonl", logs.metrics);
  await copyStart(pathOf(trunk), partial, "samples.txt", logs.samples);
  for (const part of chain) {
    const isNeeded = part === trunk || isReturnedTo(config, part.until);
    if (isNeeded) await saveCheckpoint(partial, adapted(await read(part, pathOf), config));
  }
  await writingLater(folder, () => Deno.rename(partial, folder));
}

async function read(trunk: Trunk, pathOf: (trunk: Trunk) => string): Promise<Checkpoint> {
  return await loadCheckpoint(checkpointAt(pathOf(trunk), trunk.until));
}

/** Whether a stage starts at a step that is not the end of the stage before it. */
function isReturnedTo({ stages }: RunConfig, step: number): boolean {
  let end = 0;
  return stages.some(({ name, steps }) => {
    end += steps;
    return end === step && stages.some(({ from }) => from === name);
  });
}

/** The checkpoint with another configuration; an indexer that is still new becomes its own. */
function adapted(checkpoint: Checkpoint, config: RunConfig): Checkpoint {
  if (hasTrainedIndexer(config, checkpoint.step)) return { ...checkpoint, config };
  const initial = initialParameters(config);
  const { state } = checkpoint;
  const own: EngineState = { parameters: new Map(), m: new Map(), v: new Map() };
  for (const { name, group } of modelParameters(config)) {
    const isNew = group === "indexer";
    const first = initial.get(name)!;
    own.parameters.set(name, isNew ? first : state.parameters.get(name)!);
    own.m.set(name, isNew ? new Float32Array(first.length) : state.m.get(name)!);
    own.v.set(name, isNew ? new Float32Array(first.length) : state.v.get(name)!);
  }
  return { ...checkpoint, config, state: own };
}

async function copyStart(from: string, to: string, log: string, bytes: number): Promise<void> {
  const all = await Deno.readFile(join(from, log));
  const own = join(to, log);
  await writingLater(own, () => Deno.writeFile(own, all.subarray(0, bytes)));
}
