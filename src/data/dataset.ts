/**
 * Batches of a text or a generated task. A batch is a function of (seed, split, index): a run that
 * is resumed at step n goes on with the batch it would have had.
 *
 * @module
 */
import { Rng } from "../rng.ts";
import { type CorpusOptions, openCorpus } from "./corpus.ts";
import { encodeText } from "./encode_text.ts";
import { unigramEntropy } from "./entropy.ts";
import type { DataIdentity } from "./identity.ts";
import { type Corpus, type Split, trainPieces } from "./splits.ts";
import type { Answer, Task } from "./tasks/task.ts";
import { type TaskOptions, tasks } from "./tasks/tasks.ts";
import { type Tokenizer, type TokenizerKind } from "./tokenizer/tokenizer.ts";
import { createTokenizer, loadTokenizer } from "./tokenizer/tokenizers.ts";
import { type DocumentWindows, Windows } from "./windows.ts";

/** `batchSize` sequences of `seqLen` tokens. The arrays are the caller's. */
export interface Batch {
  /** `[batchSize * seqLen]` token ids, one sequence after the other. */
  tokens: Int32Array;
  /** `[batchSize * seqLen]`: the token that each position must predict, -1 where not scored. */
  targets: Int32Array;
  /** Targets that are not -1. */
  count: number;
  /** Of texts' validation batches: bytes of the text, in UTF-8, that the scored tokens stand for. */
  bytes?: number;
  /**
   * Of generated tasks: the scored positions, counted from the start of the batch; gold positions are
   * counted from the start of their sequence.
   */
  answers?: Answer[];
}

/** What a model trains on. */
export interface Dataset {
  /** The `data` it was opened with. */
  readonly name: string;
  /** Of the text; null for generated tasks, which are what their options say. */
  readonly identity: DataIdentity | null;
  /** Token ids are 0 to `vocabSize - 1`. */
  readonly vocabSize: number;
  /** Null for generated tasks, whose tokens are symbols. */
  readonly tokenizer: Tokenizer | null;
  /** {@linkcode unigramEntropy} of all tokens of the text, null for generated tasks. */
  readonly unigramEntropy: number | null;
  /** How many batches cover the validation split; Infinity for generated tasks. */
  readonly validationBatches: number;
  /** What validation batches consist of, row by row; empty for generated tasks. */
  readonly validationDocuments: readonly DocumentWindows[];
  /**
   * The batch of an index, from 0 on; the same index always gives the same batch. Validation
   * batches are fixed windows in the order of the text, the last ones filled up with rows whose
   * targets are all -1: weigh their losses by `count`.
   *
   * @throws {RangeError} if there is no such batch
   */
  batch(split: Split, index: number): Batch;
}

/** What {@linkcode openDataset} needs. */
export interface DatasetOptions extends CorpusOptions {
  /** A generated task, one of `tasks`, or a text as for {@linkcode openCorpus}. */
  data: string;
  /** How text becomes tokens; tasks ignore it. */
  tokenizer: TokenizerKind;
  /** Tokens that `bpe` is to learn. */
  vocabSize: number;
  /** Sequences of a batch. */
  batchSize: number;
  /** Tokens of a sequence. */
  seqLen: number;
  /** Of the order of training windows, and of generated examples. */
  seed: number;
  /** A saved `tokenizer.json` to use instead of training one. */
  tokenizerJson?: object;
  /** The file that it was read from, for errors. */
  tokenizerFile?: string;
  /** Options of the task; keys of other tasks are ignored. */
  taskOptions?: Partial<TaskOptions>;
}

/** Words of its random stream that each example of a task may draw. */
const EXAMPLE_WORDS = 2 ** 24;

/**
 * Opens a text or a generated task. The last tenth of a text, or a tenth of its documents, is its
 * validation split; the tokenizer is trained on the rest.
 *
 * @throws {UserError} if the text cannot be read or is too short, or the task's options do not fit
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openDataset } from "./dataset.ts";
 *
 * const dataset = await openDataset({
 *   data: "copy",
 *   tokenizer: "byte",
 *   vocabSize: 64,
 *   batchSize: 8,
 *   seqLen: 128,
 *   seed: 1,
 * });
 * const { tokens, targets } = dataset.batch("train", 0);
 * assert.equal(tokens.length, 8 * 128);
 * assert.equal(targets.length, tokens.length);
 * ```
 */
export async function openDataset(options: DatasetOptions): Promise<Dataset> {
  const { data } = options;
  if (Object.hasOwn(tasks, data)) return openTask(tasks[data], options);
  return openText(await openCorpus(data, options), options);
}

function openText(corpus: Corpus, options: DatasetOptions): Dataset {
  const { batchSize, seqLen, seed } = options;
  const { files, bytes, sha256, documents, validationDocuments, packages } = corpus;
  const tokenizer = options.tokenizerJson
    ? loadTokenizer(options.tokenizerJson, options.tokenizerFile)
    : createTokenizer(options.tokenizer, trainPieces(corpus), options);
  const { ids, ...splits } = encodeText(tokenizer, corpus, { seqLen });
  const windows = new Windows({ name: corpus.name, ...splits, seqLen, seed });
  const validationBatches = Math.ceil(windows.validationWindows / batchSize);
  return {
    name: corpus.name,
    identity: {
      ...{ files, bytes, sha256 },
      ...(packages ? { documents, validationDocuments, packages } : {}),
    },
    vocabSize: tokenizer.vocabSize,
    tokenizer,
    unigramEntropy: unigramEntropy(ids, tokenizer.vocabSize),
    validationBatches,
    validationDocuments: windows.documents(),
    batch(split, index) {
      requireIndex(index, split === "train" ? Infinity : validationBatches);
      const batch = emptyBatch(batchSize, seqLen);
      if (split === "validation") batch.bytes = 0;
      for (let row = 0; row < batchSize; row++) {
        const at = index * batchSize + row;
        const window = split === "train" ? windows.train(at) : windows.validation(at);
        if (batch.bytes !== undefined) batch.bytes += windows.validationBytes(at);
        const n = Math.max(window.length - 1, 0);
        batch.tokens.set(window.subarray(0, n), row * seqLen);
        batch.targets.set(window.subarray(1), row * seqLen);
        batch.count += n;
      }
      return batch;
    },
  };
}

function openTask(task: Task<Partial<TaskOptions>>, options: DatasetOptions): Dataset {
  const { data, batchSize, seqLen, seed } = options;
  const taskOptions = { ...task.defaults, ...options.taskOptions };
  const dataset: Dataset = {
    name: data,
    identity: null,
    vocabSize: taskOptions.taskVocab!,
    tokenizer: null,
    unigramEntropy: null,
    validationBatches: Infinity,
    validationDocuments: [],
    batch(split, index) {
      requireIndex(index, Infinity);
      const batch = { ...emptyBatch(batchSize, seqLen), answers: [] as Answer[] };
      for (let row = 0; row < batchSize; row++) {
        const position = (index * batchSize + row) * EXAMPLE_WORDS;
        const rng = new Rng(seed, `${data}/${split}`, position);
        const example = task.generate(rng, seqLen, taskOptions);
        batch.tokens.set(example.tokens, row * seqLen);
        batch.targets.set(example.targets, row * seqLen);
        for (const { position, ...answer } of example.answers) {
          batch.answers.push({ position: row * seqLen + position, ...answer });
        }
      }
      batch.count = batch.answers.length;
      return batch;
    },
  };
  // Options that do not fit must fail now and not at the first step.
  dataset.batch("validation", 0);
  return dataset;
}

function emptyBatch(batchSize: number, seqLen: number): Batch {
  const size = batchSize * seqLen;
  return { tokens: new Int32Array(size), targets: new Int32Array(size).fill(-1), count: 0 };
}

function requireIndex(index: number, end: number): void {
  if (!Number.isInteger(index) || index < 0 || index >= end) {
    throw new RangeError(`Cannot make batch ${index}: batches are counted from 0 to ${end - 1}`);
  }
}
