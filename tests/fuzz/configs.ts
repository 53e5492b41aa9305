/**
 * Made-up configurations: refused with one line, or they read back as they are, their costs are
 * numbers, and, where they are small, every plan of every stage can be made.
 *
 * @module
 */
import assert from "node:assert/strict";
import {
  type ConfigInput,
  configKeys,
  fields,
  resolveConfig,
  type RunConfig,
} from "../../src/config/config.ts";
import { savedConfig } from "../../src/config/saved_config.ts";
import { stageSpans } from "../../src/config/stages.ts";
import { stageFields } from "../../src/config/stage_fields.ts";
import { countParameters } from "../../src/costs/costs.ts";
import { describeCosts } from "../../src/costs/description.ts";
import { requireRoom, type Room } from "../../src/costs/room.ts";
import type { Capabilities } from "../../src/kernels/wgsl/device.ts";
import { requirePlan } from "../../src/open_device.ts";
import { Rng } from "../../src/rng.ts";
import { plansOf } from "../../src/train/rehearsal.ts";
import type { Gpu } from "../../src/webgpu/device/device.ts";
import { certainly, type Findings, type Fuzzer, unclean } from "./fuzzer.ts";
import { mutateJson, pick } from "./mutate.ts";
import { randomValue } from "./random_values.ts";

export const configsFuzzer: Fuzzer = { name: "configs", run };

/** Words that keep plans small, so that most of what is accepted is planned. */
const SMALL: ConfigInput = { data: "copy", batchSize: 2, seqLen: 24, steps: 20 };
/** Parameters and tokens up to which plans are made. */
const PLANNED = { parameters: 1e6, tokens: 512, layers: 6 };

const GIB = 2 ** 30;
const ROOMS: readonly Room[] = [
  { host: 64 * GIB, heap: 4 * GIB, device: "gpu", buffer: 4 * GIB },
  { host: 4 * GIB, heap: GIB, device: "softwareGpu", buffer: GIB },
  { host: 4 * GIB, heap: GIB, device: "cpu", buffer: Infinity },
];

/** Adapters of different limits, of which only those are asked. */
const ADAPTERS: readonly Capabilities[] = [
  {
    ...{ software: false, maxBindingBytes: 2 ** 31, workgroupBytes: 49_152 },
    ...{ maxInvocations: 1024, subgroups: { min: 32, max: 32 } },
  },
  {
    ...{ software: false, maxBindingBytes: 2 ** 27, workgroupBytes: 16_384 },
    ...{ maxInvocations: 256, subgroups: null },
  },
];

async function run({ seed, until }: Parameters<Fuzzer["run"]>[0]): Promise<Findings> {
  const rng = new Rng(seed, "configs");
  const failures: Findings["failures"] = [];
  let cases = 0;
  for (; !until(); cases++) {
    const base = randomConfig(rng);
    const error = await unclean(() => check(base, pick(rng, ADAPTERS)));
    if (error) failures.push({ input: JSON.stringify(base), error });
  }
  return { cases, failures };
}

/** A few keys of runs and stages; at times with other types and names. */
function randomConfig(rng: Rng): ConfigInput {
  const config: Record<string, unknown> = { ...(rng.below(4) ? SMALL : {}) };
  for (let n = 1 + rng.below(5); n > 0; n--) {
    const key = pick(rng, configKeys);
    config[key] = randomValue(rng, fields[key]);
  }
  if (rng.below(4) === 0) {
    config.stages = Array.from({ length: 1 + rng.below(3) }, (_, i) => {
      const key = pick(rng, Object.keys(stageFields) as (keyof typeof stageFields)[]);
      const name = pick(rng, ["dense", "warmup", "sparse", "twin", `own${i}`]);
      return { name, [key]: randomValue(rng, stageFields[key]) };
    });
  }
  return (rng.below(3) ? config : mutateJson(rng, config)) as ConfigInput;
}

function check(base: ConfigInput, capabilities: Capabilities): void {
  // As it is read from a folder: there the shape of `stages` is looked at, too.
  const config = savedConfig(base ?? {}, "state.json");
  const saved = JSON.stringify(config);
  // As JSON, which has no negative zero.
  const same = (other: RunConfig) =>
    assert.deepEqual(JSON.parse(JSON.stringify(other)), JSON.parse(saved));
  same(certainly(() => savedConfig(JSON.parse(saved), "state.json")));
  same(certainly(() => resolveConfig(config)));
  certainly(() => checkCosts(config, capabilities));
}

function checkCosts(config: RunConfig, capabilities: Capabilities): void {
  // As many as a text turns out to have.
  config.vocabSize ||= 40;
  const { total } = countParameters(config);
  assert(Number.isFinite(total) && total > 0, `${total} parameters`);
  assert(!/NaN|undefined|Infinity/.test(describeCosts(config)), describeCosts(config));
  const spans = stageSpans(config.stages);
  assert(spans.every(({ start, end }) => Number.isSafeInteger(end) && end > start));
  for (const room of ROOMS) if (hasNoRoom(config, room)) return;
  if (total > PLANNED.parameters || config.numHiddenLayers > PLANNED.layers) return;
  if (config.batchSize * config.seqLen > PLANNED.tokens) return;
  const gpu = { name: "any", capabilities, limits: { maxBufferSize: 2 ** 31 } };
  for (const plan of plansOf(config, spans)) {
    requirePlan({ gpu: { ...gpu, device: gpu } as unknown as Gpu }, plan);
  }
}

/** Whether a configuration is refused for its size; any other error is thrown. */
function hasNoRoom(config: RunConfig, room: Room): boolean {
  try {
    requireRoom(config, "train", room);
    return false;
  } catch (error) {
    assert.match(String(error), /^UserError: Cannot fit [^\n]*; lower [^\n]*$/);
    return true;
  }
}
