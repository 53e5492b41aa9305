/**
 * Tokens whose far context matters (LongPPL): a dense reference model predicts them well with all of
 * its context, and much worse with the last few tokens alone. Chosen once a corpus and kept in a
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

/** Tokens of the short context; bytes, where tokens are. */
export const SHORT_CONTEXT = 64;

/** Nats that the far context must be worth. */
const LEAST_GAIN = 2;

/** A token that is not predicted in all of its context, in nats, says nothing of it. */
const MOST_LOSS = 2;

const FORMAT = "latentk long tokens 1";

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
 * @param options `batchSize`: that of `short`; `note`: is told how far it is
 */
export async function chooseLongTokens(
  all: SplitTokens,
  short: Pick<Engine, "tokenLosses">,
  { batchSize, note = () => {} }: {
    batchSize: number;
    note?: (line: string) => void;
  },
): Promise<LongTokens> {
  const candidates: number[] = [];
  // With no more context than the short one nothing can be gained by it.
  all.losses.forEach((loss, place) => {
    if (loss < MOST_LOSS && all.contexts[place] > SHORT_CONTEXT) candidates.push(place);
  });
  const shortLosses = new Float32Array(candidates.length);
  const rows = Math.ceil(candidates.length / batchSize);
  let told = performance.now();
  for (let row = 0; row < rows; row++) {
    const some = candidates.slice(row * batchSize, (row + 1) * batchSize);
    const size = batchSize * SHORT_CONTEXT;
    const tokens = new Int32Array(size), targets = new Int32Array(size).fill(-1);
    some.forEach((place, i) => {
      for (let back = 1; back <= SHORT_CONTEXT; back++) {
        // Of the same sequence, as its context is longer than that.
        tokens[(i + 1) * SHORT_CONTEXT - back] = all.tokens[place - back];
      }
      targets[(i + 1) * SHORT_CONTEXT - 1] = all.tokens[place];
    });
    const losses = await short.tokenLosses({ tokens, targets, count: some.length });
    some.forEach((_, i) => {
      shortLosses[row * batchSize + i] = losses[(i + 1) * SHORT_CONTEXT - 1];
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
