/**
 * Validation: loss, bits per byte, and for tasks the share of exact answers.
 *
 * @module
 */
import type { Batch, Dataset } from "../data/dataset.ts";
import type { Engine } from "../engine.ts";
import { requireFinite } from "../model/finite.ts";

/**
 * Means over the first `batches` validation batches: `val/loss` in nats a scored token,
 * `val/bpb` in bits a byte (texts), `val/accuracy` (tasks).
 *
 * @throws {NotFinite} if one is NaN or infinite
 */
export async function evaluate(
  engine: Engine,
  options: { dataset: Dataset; batches: number },
): Promise<Record<string, number>> {
  const { dataset } = options;
  const batches = Math.min(options.batches, dataset.validationBatches);
  let nats = 0, scored = 0, right = 0;
  const seen: Pick<Batch, "count" | "bytes">[] = [];
  for (let i = 0; i < batches; i++) {
    const batch = dataset.batch("validation", i);
    const { loss } = await engine.evaluate(batch);
    nats += loss * batch.count;
    scored += batch.count;
    seen.push({ count: batch.count, bytes: batch.bytes });
    if (!batch.answers) continue;
    right += rightAnswers(await engine.logits(batch.tokens), batch).filter(Boolean).length;
  }
  const loss = nats / scored;
  const values: Record<string, number> = { "val/loss": loss };
  const bits = bitsPerByte(loss, seen);
  if (bits !== null) values["val/bpb"] = bits;
  if (!dataset.tokenizer) values["val/accuracy"] = right / scored;
  return requireFinite(values);
}

/**
 * Bits a byte of text, by which models with different tokenizers can be compared; null for tasks.
 *
 * @param loss nats a scored token of `batches`
 * @param batches their bytes count, and no others: elsewhere in a text tokens may be twice as long
 */
export function bitsPerByte(
  loss: number,
  batches: readonly Pick<Batch, "count" | "bytes">[],
): number | null {
  let scored = 0, bytes = 0;
  for (const batch of batches) {
    scored += batch.count;
    bytes += batch.bytes ?? 0;
  }
  return bytes === 0 ? null : loss / Math.LN2 / (bytes / scored);
}

/**
 * Of each answer of a task's batch, whether its token is the likeliest.
 *
 * @throws {NotFinite} if none is
 */
export function rightAnswers(logits: Float32Array, batch: Batch): boolean[] {
  const vocabSize = logits.length / batch.tokens.length;
  return (batch.answers ?? []).map(({ position }) => {
    const row = logits.subarray(position * vocabSize, (position + 1) * vocabSize);
    const largest = row.reduce((a, b) => Math.max(a, b));
    requireFinite({ "the largest logit": largest });
    return row.indexOf(largest) === batch.targets[position];
  });
}
