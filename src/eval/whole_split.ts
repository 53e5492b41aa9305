/**
 * Losses over a whole validation split, document by document and token by token.
 *
 * @module
 */
import type { Dataset } from "../data/dataset.ts";
import type { Engine } from "../engine.ts";
import { UserError, WriteError } from "../errors.ts";
import type { FileSum } from "../files/checksum.ts";
import { writeSafetensors } from "../files/safetensors.ts";
import { bitsPerByte } from "../measure/evaluate.ts";
import { requireFinite } from "../model/finite.ts";

/** Mean losses over a whole validation split. */
export interface SplitReport {
  /** Scored tokens: all but the first of each document. */
  readonly tokens: number;
  /** Nats a scored token. */
  readonly loss: number;
  /** Bits a byte of text. */
  readonly bitsPerByte: number;
  /** The same of each document with scored tokens; one without name where the text has none. */
  readonly documents: readonly {
    readonly name: string | null;
    readonly tokens: number;
    readonly loss: number;
    readonly bitsPerByte: number;
  }[];
}

/** Every scored token of a validation split, in its order. */
export interface SplitTokens {
  /** In nats. */
  readonly losses: Float32Array;
  /** Its id. */
  readonly tokens: Int32Array;
  /** Tokens before it in its sequence. */
  readonly contexts: Int32Array;
  /** Number of its document, from 0 on. */
  readonly documents: Int32Array;
}

/**
 * Refuses generated tasks, whose validation split has no end.
 *
 * @throws {UserError} saying what to do instead
 */
export function requireSplit(dataset: Dataset): void {
  if (Number.isFinite(dataset.validationBatches)) return;
  throw new UserError(
    `Cannot evaluate all of data=${dataset.name}: examples are generated without end; ` +
      "set evalBatches, or give a text",
  );
}

/**
 * Scores every token of the validation split.
 *
 * @param options.seqLen that of the engine and of the dataset's batches
 */
export async function scoreSplit(
  engine: Pick<Engine, "tokenLosses">,
  { dataset, seqLen }: { dataset: Dataset; seqLen: number },
): Promise<SplitTokens> {
  const count = dataset.validationDocuments.reduce((sum, { tokens }) => sum + tokens, 0);
  const found: SplitTokens = {
    losses: new Float32Array(count),
    tokens: new Int32Array(count),
    contexts: new Int32Array(count),
    documents: new Int32Array(count),
  };
  const ends: number[] = [];
  for (const { tokens } of dataset.validationDocuments) ends.push((ends.at(-1) ?? 0) + tokens);
  let size = 0, document = 0;
  for (let i = 0; i < dataset.validationBatches; i++) {
    const batch = dataset.batch("validation", i);
    const losses = await engine.tokenLosses(batch);
    for (let at = 0; at < losses.length; at++) {
      if (batch.targets[at] < 0) continue;
      while (size >= ends[document]) document++;
      found.losses[size] = losses[at];
      found.tokens[size] = batch.targets[at];
      found.contexts[size] = at % seqLen + 1;
      found.documents[size++] = document;
    }
  }
  return found;
}

/**
 * Means over a whole split, and over each of its documents.
 *
 * @throws {NotFinite} if one is NaN or infinite
 */
export function reportSplit({ losses }: SplitTokens, dataset: Dataset): SplitReport {
  let begin = 0;
  const rows = dataset.validationDocuments.map(({ name, tokens, bytes }) => {
    const nats = sumOf(losses.subarray(begin, begin += tokens));
    return { name, tokens, bytes, nats };
  });
  const told = (some: typeof rows) => {
    const loss = sumOf(some.map(({ nats }) => nats)) / sumOf(some.map(({ tokens }) => tokens));
    requireFinite({ loss });
    return {
      loss,
      bitsPerByte: bitsPerByte(loss, some.map(({ tokens, bytes }) => ({ count: tokens, bytes })))!,
    };
  };
  return {
    tokens: losses.length,
    ...told(rows),
    documents: rows.filter(({ tokens }) => tokens > 0)
      .map((row) => ({ name: row.name, tokens: row.tokens, ...told([row]) })),
  };
}

function sumOf(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum;
}

/**
 * Writes every token's loss into a safetensors file: `losses` (float32, nats), `tokens` (ids),
 * `contexts` (tokens before it in its sequence), `documents` (numbers of the names in the metadata).
 *
 * @param metadata which model and text they are of
 * @throws {WriteError} if it cannot be written; what was there before still is
 */
export async function writeTokenLosses(
  file: string,
  { losses, tokens, contexts, documents }: SplitTokens,
  metadata: Record<string, string>,
): Promise<FileSum & { file: string }> {
  const shape = [losses.length];
  const tensors = new Map(
    Object.entries({ losses, tokens, contexts, documents })
      .map(([name, data]) => [name, { shape, data }]),
  );
  return { file, ...await writeTensorsAside(file, tensors, metadata) };
}

/**
 * Writes a safetensors file whole, or leaves what was there.
 *
 * @throws {WriteError} if it cannot be written
 */
export async function writeTensorsAside(
  file: string,
  tensors: Parameters<typeof writeSafetensors>[1],
  metadata: Record<string, string>,
): Promise<FileSum> {
  const partial = `${file}.partial`;
  try {
    const sum = await writeSafetensors(partial, tensors, { metadata });
    await Deno.rename(partial, file);
    return sum;
  } catch (error) {
    await Deno.remove(partial).catch(() => {});
    const [reason] = String(error instanceof Error ? error.message : error).split("\n", 1);
    throw new WriteError(`Cannot write ${file}: ${reason}; make room, or name another file`, {
      cause: error,
    });
  }
}
