/**
 * Rules between the keys of a configuration, each with its way out.
 *
 * @module
 */
import type { RunConfig } from "./run_fields.ts";
import { UserError } from "../errors.ts";

/** The tokens of the byte tokenizer. */
const BYTES = 256;

/**
 * Checks the values of a complete configuration against each other.
 *
 * @throws {UserError} for the first rule broken: key, value and the way out in one line
 */
export function checkTogether(config: RunConfig): void {
  const fail = (message: string): never => {
    throw new UserError(message);
  };
  if (config.name !== null && !/^[\w][\w.+-]*$/.test(config.name)) {
    fail(`Cannot set name="${config.name}": use letters, digits and . _ + - only, no folders`);
  }
  checkSchedule(config, fail);
  if (config.attention === "mla") {
    const rope = config.qkRopeHeadDim;
    if (rope % 2) {
      fail(`Cannot set qkRopeHeadDim=${rope}: rotary embedding turns pairs, use ${rope + 1}`);
    }
    if (config.latentRope === "onLatent" && config.kvLoraRank % 2) {
      fail(
        `Cannot set kvLoraRank=${config.kvLoraRank} with latentRope=onLatent: rotary embedding ` +
          `turns pairs, use ${config.kvLoraRank + 1}`,
      );
    }
    if (config.latentRope === "onLatent" && config.latentBits !== null) {
      fail(
        `Cannot set latentBits=${config.latentBits} with latentRope=onLatent: what is cached is ` +
          "rotated after it is rounded; use latentRope=decoupled",
      );
    }
    if (config.numKeyValueHeads !== config.numAttentionHeads) {
      fail(
        `Cannot set numKeyValueHeads=${config.numKeyValueHeads} with attention=mla: its latent is ` +
          `shared by all ${config.numAttentionHeads} heads; leave the key out or use attention=gqa`,
      );
    }
    checkGroups(config, fail);
    checkIndexer(config, fail);
  } else {
    checkHeads(config, fail);
    checkMosa(config, fail);
    if (config.latentBits !== null) {
      fail(
        `Cannot set latentBits=${config.latentBits} with attention=${config.attention}: it has no ` +
          "latent; use attention=mla",
      );
    }
    if (config.recipe !== "dense") {
      fail(
        `Cannot set recipe=${config.recipe} with attention=${config.attention}: only attention=mla ` +
          "has an indexer; use recipe=dense",
      );
    }
  }
  if (config.window !== null && (config.attention === "mosa" || config.recipe !== "dense")) {
    fail(
      `Cannot set window=${config.window} with attention=${config.attention} and ` +
        `recipe=${config.recipe}: a sliding window is a baseline of dense attention; use recipe=dense`,
    );
  }
  if (config.hadamard && config.latentBits === null && config.indexBits === null) {
    fail("Cannot set hadamard=true: nothing is kept in fewer bits; set latentBits or indexBits");
  }
  if (config.data === "") fail("Cannot set data to nothing: name a text file, or data=moby_dick");
  if (config.tokenizer === "bpe" && !isTask(config.data) && config.vocabSize < BYTES) {
    fail(
      `Cannot set vocabSize=${config.vocabSize} with tokenizer=bpe: it has all ${BYTES} bytes and ` +
        "what it learns; use more, such as vocabSize=4096",
    );
  }
}

/** Names of the generated tasks: those of `tasks` in `data/tasks/`. */
export const taskNames: readonly string[] = [
  ...["copy", "recall", "needle", "mqar", "induction", "multihop", "selectiveCopy"],
  ...["counting", "dyck"],
];

/** Whether `data` names a generated task; then tokens are the task's own symbols. */
export function isTask(data: string): boolean {
  return taskNames.includes(data);
}

type Fail = (message: string) => never;

function checkSchedule(config: RunConfig, fail: Fail): void {
  const { steps, warmupSteps: warmup, decaySteps } = config;
  const decay = config.schedule === "wsd" ? decaySteps : 0;
  if (warmup > steps) {
    fail(`Cannot set warmupSteps=${warmup}: more than steps=${steps}; lower it or raise steps`);
  }
  if (warmup + decay > steps) {
    fail(
      `Cannot set decaySteps=${decay}: with warmupSteps=${warmup} more than steps=${steps}; ` +
        "lower one of the two or raise steps",
    );
  }
}

function checkGroups(config: RunConfig, fail: Fail): void {
  const { indexGroups, indexKeyInput, numAttentionHeads, indexNHeads } = config;
  // Without an indexer there are no heads of it to be divided.
  const divided = indexKeyInput === "native"
    ? { numAttentionHeads }
    : { numAttentionHeads, indexNHeads };
  for (const [key, heads] of Object.entries(divided)) {
    if (heads % indexGroups === 0) continue;
    const possible = divisors(numAttentionHeads)
      .filter((count) => Object.values(divided).every((heads) => heads % count === 0));
    fail(
      `Cannot set indexGroups=${indexGroups}: must divide ${key}=${heads}; use one of ` +
        `${possible.join(", ")}, or other numbers of heads`,
    );
  }
}

function checkIndexer(config: RunConfig, fail: Fail): void {
  const { recipe, indexInput, indexKeyInput, latentRope, indexRope, indexHeadDim } = config;
  const { qkRopeHeadDim: rope, selector, indexBits, indexLoss } = config;
  if (recipe === "dense") return;
  if (indexKeyInput === "native") {
    if (indexLoss !== "kl") {
      fail(
        `Cannot set indexLoss=${indexLoss} with indexKeyInput=native: there is no indexer to ` +
          "learn; use another indexKeyInput",
      );
    }
    if (indexBits !== null) {
      fail(
        `Cannot set indexBits=${indexBits} with indexKeyInput=native: it has no indexer; ` +
          "set latentBits, or use another indexKeyInput",
      );
    }
    if (selector !== "block") return;
    fail(
      "Cannot set selector=block with indexKeyInput=native: blocks are chosen by the scores of an " +
        "indexer; use selector=learned or another indexKeyInput",
    );
  }
  if (indexLoss !== "kl" && config.indexActivation !== "none") {
    fail(
      `Cannot set indexLoss=${indexLoss} with indexActivation=${config.indexActivation}: attention ` +
        "takes scores as products of queries and keys; use indexActivation=none",
    );
  }
  if (indexLoss !== "kl" && config.indexShare > 1) {
    fail(
      `Cannot set indexLoss=${indexLoss} with indexShare=${config.indexShare}: scores go into the ` +
        "attention of their own layer; use indexShare=1",
    );
  }
  if (indexInput === "qLatent" && config.qLoraRank === null) {
    fail(
      "Cannot set indexInput=qLatent with qLoraRank=none: queries have no latent; " +
        "use indexInput=hidden or set qLoraRank",
    );
  }
  if (indexKeyInput !== "hidden" && latentRope === "onLatent") {
    fail(
      `Cannot set indexKeyInput=${indexKeyInput} with latentRope=onLatent: what is cached is ` +
        "rotated; use indexKeyInput=hidden or latentRope=decoupled",
    );
  }
  if (indexRope !== "none" && indexHeadDim < rope) {
    fail(
      `Cannot set indexHeadDim=${indexHeadDim}: rotary embedding turns its first ` +
        `qkRopeHeadDim=${rope} dims; use indexHeadDim=${rope} or indexRope=none`,
    );
  }
}

/**
 * Checks what the stages of a complete configuration teach an indexer.
 *
 * @throws {UserError} if its heads cannot learn from a head each
 */
export function checkTeaching(
  { klHeads, indexNHeads, numAttentionHeads, stages }: RunConfig,
): void {
  if (klHeads === "sum" || stages.every(({ kl }) => kl === "none")) return;
  if (indexNHeads === numAttentionHeads) return;
  throw new UserError(
    `Cannot set klHeads=each with indexNHeads=${indexNHeads}: each index head learns from an ` +
      `attention head of its own; use indexNHeads=${numAttentionHeads}`,
  );
}

function checkHeads(config: RunConfig, fail: Fail): void {
  const { attention, headDim, hiddenSize, numAttentionHeads: heads, numKeyValueHeads: kv } = config;
  if (!Number.isInteger(headDim)) {
    fail(
      `Cannot set hiddenSize=${hiddenSize} with numAttentionHeads=${heads}: no whole heads; ` +
        `use hiddenSize=${Math.ceil(hiddenSize / heads) * heads} or set headDim`,
    );
  }
  if (headDim % 2) {
    fail(
      `Cannot set headDim=${headDim}: rotary embedding turns pairs, use headDim=${headDim + 1}`,
    );
  }
  if (attention !== "gqa" && kv !== heads) {
    fail(
      `Cannot set numKeyValueHeads=${kv} with attention=${attention}: it has one for each of the ` +
        `${heads} heads; leave the key out or use attention=gqa`,
    );
  }
  if (heads % kv) {
    fail(
      `Cannot set numKeyValueHeads=${kv}: must divide numAttentionHeads=${heads}; use one of ` +
        divisors(heads).join(", "),
    );
  }
}

function checkMosa({ attention, mosaDenseHeads, numAttentionHeads }: RunConfig, fail: Fail): void {
  if (attention !== "mosa" || mosaDenseHeads < numAttentionHeads) return;
  fail(
    `Cannot set mosaDenseHeads=${mosaDenseHeads} with numAttentionHeads=${numAttentionHeads}: no ` +
      "head is left to choose tokens; use fewer, or attention=mha",
  );
}

function divisors(n: number): number[] {
  const low: number[] = [];
  for (let d = 1; d * d <= n; d++) if (n % d === 0) low.push(d);
  return [...new Set([...low, ...low.map((d) => n / d).reverse()])];
}
