/**
 * Tokens whose far context matters (LongPPL): a dense reference model predicts them well with all of
 * its context, and much worse with the last bytes of it alone. Chosen once a corpus and kept in a
 * file, they are the same for every model that is evaluated on it.
 *
 * @see https://arxiv.org/abs/2410.23771
 * @module
 */
import type { Engine } from "../engine.ts";
import { UserError } from "../errors.ts";
import { type FileSum, sumOfFile } from "../files/checksum.ts";
import { readSafetensors, type TensorData } from "../files/safetensors.ts";
import type { SplitTokens } from "./whole_split.ts";

/** Bytes of the short context, whatever the tokenizer, and so the most tokens of it. */
export const SHORT_CONTEXT = 64;

/** Nats that the far context must be worth. */
const LEAST_GAIN = 2;

/** A token that is not predicted in all of its context, in nats, says nothing of it. */
const MOST_LOSS = 2;

const FORMAT = "latentk long tokens 2";

/** Which tokens of a validation split count, and why. */
export interface LongTokens {
  /** Their places among all scored tokens of the split, rising. */
  readonly places: Int32Array;
  /** Of the reference model with all of its context, in nats. */
  readonly long: Float32Array;
  /** Of the same with the short context. */
  readonly short: Float32Array;
}

/** The loss over such tokens. */
export interface LongTokensReport extends FileSum {
  /** The list. */
  readonly file: string;
  /** Tokens on it. */
  readonly tokens: number;
  /** Nats a token; null where none is on it. */
  readonly loss: number | null;
  /** The model that chose them, as it was called. */
  readonly reference: string;
  /** SHA-256 of its values, in hexadecimal. */
  readonly referenceSha256: string;
  /** Its longest context in tokens. */
  readonly seqLen: number;
}

/**
 * Chooses the tokens of a split.
 *
 * @param all every scored token, with the reference's losses in all of its context
 * @param short the reference at sequences of {@linkcode SHORT_CONTEXT} tokens
 * @param options `bytes`: of the text, that each scored token stands for; `batchSize`: that of
 * `short`; `note`: is told how far it is
 */
export async function chooseLongTokens(
  all: SplitTokens,
  short: Pick<Engine, "tokenLosses">,
  { bytes, batchSize, note = () => {} }: {
    bytes: ArrayLike<number>;
    batchSize: number;
    note?: (line: string) => void;
  },
): Promise<LongTokens> {
  const candidates: number[] = [];
  const counts: number[] = [];
  all.losses.forEach((loss, place) => {
    if (loss >= MOST_LOSS) return;
    // A sequence's first token is not scored. Without more than the short context there is no gain.
    const count = shortContext(bytes, place, all.contexts[place] - 1);
    if (count === null) return;
    candidates.push(place);
    counts.push(count);
  });
  const shortLosses = new Float32Array(candidates.length);
  const rows = Math.ceil(candidates.length / batchSize);
  let told = performance.now();
  for (let row = 0; row < rows; row++) {
    const some = candidates.slice(row * batchSize, (row + 1) * batchSize);
    const size = batchSize * SHORT_CONTEXT;
    const ends: number[] = [];
    const tokens = new Int32Array(size), targets = new Int32Array(size).fill(-1);
    some.forEach((place, i) => {
      const count = counts[row * batchSize + i];
      const first = i * SHORT_CONTEXT;
      tokens.set(all.tokens.subarray(place - count, place), first);
      // What stands behind the last of them is not seen.
      ends[i] = first + count - 1;
      targets[ends[i]] = all.tokens[place];
    });
    const losses = await short.tokenLosses({ tokens, targets, count: some.length });
    some.forEach((_, i) => {
      shortLosses[row * batchSize + i] = losses[ends[i]];
    });
    if (performance.now() - told > 10_000) {
      note(`tokens with a short context: ${Math.round(100 * (row + 1) / rows)} %`);
      told = performance.now();
    }
  }
  const chosen = candidates.flatMap((place, i) =>
    shortLosses[i] - all.losses[place] > LEAST_GAIN ? [i] : []
  );
  return {
    places: Int32Array.from(chosen, (i) => candidates[i]),
    long: Float32Array.from(chosen, (i) => all.losses[candidates[i]]),
    short: Float32Array.from(chosen, (i) => shortLosses[i]),
  };
}

/**
 * How many of the tokens before one fit into the short context, at least one; null where those of its
 * sequence, `most` at most, might all do.
 */
function shortContext(bytes: ArrayLike<number>, place: number, most: number): number | null {
  let sum = 0;
  for (let count = 0;; count++) {
    if (count === SHORT_CONTEXT || sum >= SHORT_CONTEXT) return count;
    if (count === most) return null;
    const next = bytes[place - count - 1];
    if (count > 0 && sum + next > SHORT_CONTEXT) return count;
    sum += next;
  }
}

/** What a list is of. */
export interface ListOrigin {
  /** `data` as it was set. */
  readonly data: string;
  /** Of the text, in hexadecimal. */
  readonly dataSha256: string;
  /** Of the split's tokens, which a tokenizer makes of it. */
  readonly tokensSha256: string;
  /** The reference model, as it was called. */
  readonly reference: string;
  /** Of its values. */
  readonly referenceSha256: string;
  /** Its longest context. */
  readonly seqLen: number;
}

/** The tensors and metadata of a list. */
export function listContent(
  { places, long, short }: LongTokens,
  origin: ListOrigin,
): { tensors: Map<string, TensorData>; metadata: Record<string, string> } {
  const shape = [places.length];
  const { seqLen, ...texts } = origin;
  return {
    tensors: new Map(
      Object.entries({ places, long, short }).map(([name, data]) => [name, { shape, data }]),
    ),
    metadata: {
      ...{ format: FORMAT, ...texts, seqLen: String(seqLen) },
      ...thresholds(),
    },
  };
}

function thresholds(): Record<string, string> {
  return {
    shortContext: String(SHORT_CONTEXT),
    leastGain: String(LEAST_GAIN),
    mostLoss: String(MOST_LOSS),
  };
}

/** A list as read. */
export interface LongTokensList {
  /** The file. */
  readonly file: string;
  /** Its size and hash. */
  readonly sum: FileSum;
  /** See {@linkcode LongTokens}. */
  readonly places: Int32Array;
  /** What it was made of. */
  readonly origin: ListOrigin;
}

function refuse(file: string, reason: string): never {
  throw new UserError(
    `Cannot use longTokens=${file}: ${reason}; name another file, and a list is made`,
  );
}

/**
 * Reads a list.
 *
 * @param data of the text that it must be of
 * @throws {UserError} if it is damaged, or of another text
 */
export async function readLongTokens(
  file: string,
  { sha256 }: { sha256: string },
): Promise<LongTokensList> {
  const { tensors, metadata } = await readSafetensors(file);
  const places = tensors.get("places")?.data;
  const isSame = Object.entries(thresholds()).every(([name, value]) => metadata[name] === value);
  if (metadata.format !== FORMAT || !isSame || !(places instanceof Int32Array)) {
    refuse(file, `it is no list of format "${FORMAT}" with the thresholds of this program`);
  }
  const { data, dataSha256, tokensSha256, reference, referenceSha256 } = metadata;
  if (dataSha256 !== sha256) {
    refuse(
      file,
      `it is of another text, data=${data} (SHA-256 ${String(dataSha256).slice(0, 8)}…)`,
    );
  }
  const isRising = places.every((place, i) => place >= 0 && (i === 0 || places[i - 1] < place));
  const seqLen = Number(metadata.seqLen);
  if (!isRising || !(seqLen > SHORT_CONTEXT)) refuse(file, "it is damaged");
  const origin = { data, dataSha256, tokensSha256, reference, referenceSha256, seqLen };
  return { file, sum: sumOfFile(file), places, origin };
}

/**
 * The mean loss over the tokens of a list.
 *
 * @param tokensSha256 of the split's tokens, as a tokenizer makes them
 * @throws {UserError} if the list is of other tokens
 */
export function reportLongTokens(
  { file, sum, places, origin }: LongTokensList,
  { losses }: Pick<SplitTokens, "losses">,
  tokensSha256: string,
): LongTokensReport {
  if (origin.tokensSha256 !== tokensSha256) {
    refuse(file, "it is of other tokens of this text, those of another tokenizer");
  }
  if ((places.at(-1) ?? 0) >= losses.length) refuse(file, "it is damaged");
  const nats = places.reduce((sum, place) => sum + losses[place], 0);
  const { reference, referenceSha256, seqLen } = origin;
  return {
    file,
    ...sum,
    tokens: places.length,
    loss: places.length ? nats / places.length : null,
    ...{ reference, referenceSha256, seqLen },
  };
}
