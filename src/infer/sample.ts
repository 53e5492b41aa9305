/**
 * Generates text token by token.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { DecodeFunction, Engine } from "../engine.ts";
import { requireFinite } from "../model/finite.ts";
import type { Rng } from "../rng.ts";

/** How to sample. */
export interface SampleOptions {
  /** Tokens the text begins with; at least one. */
  readonly prompt: ArrayLike<number>;
  /** Tokens to generate. */
  readonly count: number;
  /** 0 takes the likeliest token each time. */
  readonly temperature: number;
  /** The sequence length of the engine's model: its window of context. */
  readonly seqLen: number;
  /** Tokens to draw from, the first ones; default: all that the model knows. */
  readonly vocabSize?: number;
  /**
   * The engine's model, one token at a time; see `decodingModel`. Null and default: each new token
   * costs a whole window.
   */
  readonly decoding?: DecodeFunction | null;
  /** Takes one word a token, none at temperature 0. */
  readonly rng: Rng;
  /** Called with each token as it comes. */
  readonly onToken?: (token: number) => void;
}

/**
 * Whether a token's logits depend on the tokens before it alone, so that text can be generated.
 * With mosaCausal=false heads of mosa pick among all tokens of the sequence.
 */
export function isCausal(
  { attention, mosaCausal }: Pick<RunConfig, "attention" | "mosaCausal">,
): boolean {
  return attention !== "mosa" || mosaCausal;
}

/**
 * Continues `prompt` by `count` tokens, each drawn from the model's distribution over the last
 * `seqLen` tokens. The model must be causal; see {@linkcode isCausal}.
 *
 * While the text fits into `seqLen` tokens, an engine that has a decoder computes each token once, the
 * prompt's one by one, too. Then the window slides: positions count from its start, so what is cached
 * no longer fits, and every token costs a whole window.
 *
 * @returns the new tokens
 * @throws {RangeError} if the prompt is empty
 * @throws {NotFinite} if logits are not
 */
export async function sample(engine: Engine, options: SampleOptions): Promise<Int32Array> {
  const { prompt, count, temperature, seqLen, vocabSize, decoding, rng, onToken } = options;
  if (!prompt.length) throw new RangeError("Cannot sample from an empty prompt: give a token");
  const all = Array.from(prompt);
  using decoder = decoding && all.length <= seqLen ? engine.decoder?.(decoding) : null;
  let decoded = 0;
  // Positions after the last token are filled with zeros: to a causal model they change nothing.
  const window = new Int32Array(seqLen);
  const next = () => {
    if (decoder && all.length <= seqLen) {
      while (decoded < all.length) decoder.push(all[decoded++]);
      return decoder.logits();
    }
    const recent = all.slice(-seqLen);
    window.fill(0).set(recent);
    return engine.logits(window, recent.length - 1);
  };
  for (let i = 0; i < count; i++) {
    const logits = await next();
    const token = draw(logits.subarray(0, vocabSize), temperature, rng);
    all.push(token);
    onToken?.(token);
  }
  return Int32Array.from(all.slice(prompt.length));
}

function draw(logits: Float32Array, temperature: number, rng: Rng): number {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  requireFinite({ "the largest logit": largest });
  if (temperature === 0) return logits.indexOf(largest);
  const weights = Float64Array.from(logits, (x) => Math.exp((x - largest) / temperature));
  let rest = rng.uniform() * weights.reduce((a, b) => a + b, 0);
  for (let i = 0; i < weights.length; i++) if ((rest -= weights[i]) < 0) return i;
  return logits.indexOf(largest);
}
