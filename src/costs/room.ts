/**
 * The least memory that a configuration needs, added up before any of it is taken: what is refused
 * here could not have run, and would have ended in the middle, or taken the machine with it.
 *
 * @module
 */
import { getHeapStatistics } from "node:v8";
import { isTask } from "../config/checks.ts";
import type { RunConfig } from "../config/config.ts";
import { usesIndexer } from "../config/stages.ts";
import { UserError } from "../errors.ts";
import { freeMemory } from "../files/host_memory.ts";
import { modelParameters } from "../model/parameters.ts";
import type { Device } from "../open_device.ts";
import { formatBytes } from "../text/units.ts";

/** Bytes of a number. */
const WORD = 4;
/** What a wasm module can address: 65 536 pages of 64 KiB. */
const WASM_BYTES = 65_536 * 65_536;
/** Bytes of the JavaScript heap that a layer's plans take at least: 60 kernels with their code. */
const LAYER_PLAN_BYTES = 60 * 1024;
/** The same of a pass over a chunk of the pairs of tokens of a layer, as `byQueryChunks` has it. */
const CHUNK_PLAN_BYTES = 2 * 1024;
const CHUNK_BYTES = 32 * 2 ** 20;

/** What a model is opened for: training keeps gradients and moments, and saves all of it. */
export type Purpose = "train" | "evaluate";

/** The memory of a machine and of what computes on it. */
export interface Room {
  /** Free bytes of the machine. */
  readonly host: number;
  /** Bytes of the JavaScript heap. */
  readonly heap: number;
  /** What computes: null while it is not known. */
  readonly device: "gpu" | "softwareGpu" | "cpu" | null;
  /** Bytes of the largest buffer; Infinity where the device is not known. */
  readonly buffer: number;
}

/** One need of memory: of what, and the keys that make it less. */
interface Need {
  readonly what: string;
  readonly bytes: number;
  readonly keys: readonly (keyof RunConfig)[];
}

/** The room on this machine, before a device is opened, or with it. */
export function roomOf(device: Pick<Device, "gpu"> | null = null): Room {
  const { gpu } = device ?? {};
  return {
    host: freeMemory(),
    heap: getHeapStatistics().heap_size_limit,
    device: !device ? null : !gpu ? "cpu" : gpu.capabilities.software ? "softwareGpu" : "gpu",
    buffer: gpu?.limits.maxBufferSize ?? Infinity,
  };
}

/**
 * Refuses a configuration that needs more memory than there is.
 *
 * @param purpose `train`, or `evaluate` for all that only computes
 * @throws {UserError} saying what needs how much, how much there is, and what to lower
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "../config/config.ts";
 * import { requireRoom } from "./room.ts";
 *
 * const room = { host: 2 ** 30, heap: 2 ** 30, device: null, buffer: Infinity };
 * requireRoom(resolveConfig({}), "train", room);
 * const large = resolveConfig({ hiddenSize: 1e9 });
 * assert.throws(() => requireRoom(large, "train", room), /48\.3 TiB, .* hiddenSize \(1000000000\)/);
 * ```
 */
export function requireRoom(config: RunConfig, purpose: Purpose, room: Room = roomOf()): void {
  const { device } = room;
  refuse(config, planNeeds(config), { bytes: room.heap, of: "the JavaScript heap holds" });
  const model = modelNeed(config, purpose);
  const weights = modelNeed(config, "evaluate");
  const activations = activationNeeds(config, purpose, device);
  // A device with memory of its own takes what the machine need not have.
  const isShared = device === "cpu" || device === "softwareGpu";
  refuse(config, [model, ...batchNeeds(config, purpose), ...isShared ? activations : []], {
    ...{ bytes: room.host, of: "this machine has free" },
  });
  if (device === "cpu") {
    const wasm = { bytes: WASM_BYTES, of: "device=cpu (wasm) can address" };
    refuse(config, [weights, ...activations], wasm);
  }
  const buffers = [weights, ...activationNeeds(config, "evaluate", "gpu")];
  for (const need of buffers) {
    refuse(config, [need], { bytes: room.buffer, of: "one buffer of the adapter holds" });
  }
}

function refuse(
  config: RunConfig,
  needs: readonly Need[],
  room: { bytes: number; of: string },
): void {
  const sum = needs.reduce((all, { bytes }) => all + bytes, 0);
  if (sum <= room.bytes) return;
  const { what, bytes, keys } = needs.reduce((a, b) => b.bytes > a.bytes ? b : a);
  const [own, all] = [bytes, sum].map(formatBytes);
  const total = own === all ? "" : ` of ${all} in all`;
  throw new UserError(
    `Cannot fit this model into memory: ${what} need at least ${own}${total}, ` +
      `${room.of} ${formatBytes(room.bytes)}; lower ` +
      keys.map((key) => `${key} (${config[key]})`).join(" or "),
  );
}

/** Parameters; in training also gradients and two moments. */
function modelNeed(config: RunConfig, purpose: Purpose): Need {
  let numbers = 0, largest = 0, name = "";
  for (const p of modelParameters({ ...config, vocabSize: Math.max(config.vocabSize, 1) })) {
    const size = p.rows * p.cols;
    numbers += size;
    if (size > largest) [largest, name] = [size, p.name];
  }
  const copies = purpose === "train" ? 4 : 1;
  const what = purpose === "train" ? "parameters, gradients and moments" : "parameters";
  return { what, bytes: copies * numbers * WORD, keys: sizeKeys(config, name) };
}

/** The keys that the size of the largest parameter follows from, and the number of layers. */
function sizeKeys({ attention }: RunConfig, name: string): (keyof RunConfig)[] {
  const own: (keyof RunConfig)[] = /embed_tokens|lm_head/.test(name)
    ? ["vocabSize", "hiddenSize"]
    : name.includes(".mlp.")
    ? ["intermediateSize", "hiddenSize"]
    : name.includes(".indexer.")
    ? ["indexNHeads", "indexHeadDim", "hiddenSize"]
    : attention !== "mla"
    ? ["numAttentionHeads", "headDim", "hiddenSize"]
    : [
      "numAttentionHeads",
      "qkNopeHeadDim",
      "qkRopeHeadDim",
      "vHeadDim",
      "kvLoraRank",
      "hiddenSize",
    ];
  return [...own, "numHiddenLayers"];
}

/** Tokens, targets and the inputs of a plan, on the machine's side. */
function batchNeeds(config: RunConfig, purpose: Purpose): Need[] {
  const { batchSize, seqLen, accumulate, evalBatches } = config;
  const batch = 2 * WORD * batchSize * seqLen;
  const needs: Need[] = [
    { what: "the inputs of a plan", bytes: 1.5 * batch, keys: ["batchSize", "seqLen"] },
  ];
  if (purpose === "train") {
    const bytes = accumulate * batch;
    needs.push({
      what: "the batches of a step",
      bytes,
      keys: ["accumulate", "batchSize", "seqLen"],
    });
  }
  // Of a text there are only as many as it has.
  if (isTask(config.data)) {
    const bytes = evalBatches * batch;
    needs.push({
      ...{ what: "the batches of an evaluation", bytes },
      keys: ["evalBatches", "batchSize", "seqLen"],
    });
  }
  return needs;
}

/** The residual stream: every layer's in training, unless it is computed again. */
function activationNeeds(config: RunConfig, purpose: Purpose, device: Room["device"]): Need[] {
  const { batchSize, seqLen, hiddenSize, numHiddenLayers, recompute, numAttentionHeads } = config;
  const kept = purpose === "train" && !(recompute && device !== "cpu") ? numHiddenLayers : 1;
  const needs: Need[] = [{
    what: "activations",
    bytes: WORD * kept * batchSize * seqLen * hiddenSize,
    keys: ["batchSize", "seqLen", "hiddenSize"],
  }];
  // The twins have attention's scores and weights as they are.
  const isPicked = config.attention === "mosa" && !config.mosaCausal;
  const heads = isPicked ? config.mosaDenseHeads : numAttentionHeads;
  if (device === "cpu" && heads > 0) {
    needs.push({
      what: "attention's scores",
      bytes: 2 * WORD * kept * batchSize * heads * seqLen * seqLen,
      keys: ["seqLen", "batchSize", "numAttentionHeads"],
    });
  }
  return needs;
}

function planNeeds(config: RunConfig): Need[] {
  const { numHiddenLayers, batchSize, seqLen } = config;
  const chunks = usesIndexer(config) ? batchSize * seqLen * seqLen * WORD / CHUNK_BYTES : 0;
  return [
    {
      ...{ what: "the plans of all layers", bytes: numHiddenLayers * LAYER_PLAN_BYTES },
      keys: ["numHiddenLayers"],
    },
    {
      what: "plans of so many pairs of tokens",
      bytes: numHiddenLayers * chunks * CHUNK_PLAN_BYTES,
      keys: ["batchSize", "seqLen", "numHiddenLayers"],
    },
  ];
}
