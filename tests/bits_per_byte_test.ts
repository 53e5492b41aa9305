/** Bits a byte: nats of the scored tokens over the bytes of the same tokens. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { type Batch, openDataset } from "../src/data/dataset.ts";
import type { Tokenizer, TokenizerKind } from "../src/data/tokenizer/tokenizer.ts";
import type { Engine } from "../src/engine.ts";
import { evaluate } from "../src/measure/evaluate.ts";
import { readMetrics } from "../src/runs/run_folder.ts";
import { options, withFiles } from "./data_case.ts";
import { evaluated, near, SMALL } from "./eval_run.ts";
import { trainIn } from "./train_run.ts";

const SEQ_LEN = 32;
const BATCH_SIZE = 2;

/**
 * The validation split is one character a byte at first, then three and four bytes a character,
 * some of which (the whales) stand nowhere in the training split.
 */
const VALIDATION = "It is a way I have, of driving off the spleen. ".repeat(4) +
  "深海の鯨は歌う。🐋鯨🐳海".repeat(16);
const MIXED =
  "Call me Ishmael. 鯨は深海の歌。うたう。".repeat(700).slice(0, 9 * VALIDATION.length) +
  VALIDATION;

/** Bytes of each token, from the text (char) or the letters of the saved vocabulary (byte level). */
function bytesByHand(tokenizer: Tokenizer): number[] {
  if (tokenizer.kind === "char") return [...VALIDATION].map((c) => Buffer.byteLength(c));
  const { vocab } = tokenizer.toJSON().model;
  const lengths = new Map(Object.entries(vocab).map(([token, id]) => [id, token.length]));
  return [...tokenizer.encode(VALIDATION)].map((id) => lengths.get(id)!);
}

/** Scores a token as id % 7 + 1 nats. */
const engine = {
  evaluate: ({ targets, count }: Batch) => {
    const scored = [...targets].filter((target) => target >= 0);
    return Promise.resolve({ loss: scored.reduce((sum, id) => sum + id % 7 + 1, 0) / count });
  },
} as unknown as Engine;

for (const tokenizer of ["byte", "char", "bpe"] as TokenizerKind[]) {
  Deno.test(`${tokenizer}: bytes are those of the scored tokens`, () =>
    withFiles({ "mixed.txt": MIXED }, async (folder) => {
      const dataset = await openDataset(options({
        ...{ data: join(folder, "mixed.txt"), tokenizer, vocabSize: 300 },
        ...{ seqLen: SEQ_LEN, batchSize: BATCH_SIZE },
      }));
      const ids = dataset.tokenizer!.encode(VALIDATION);
      const bytes = bytesByHand(dataset.tokenizer!);
      assert.equal(bytes.length, ids.length);
      assert.equal(bytes.reduce((a, b) => a + b), Buffer.byteLength(VALIDATION));
      const found: number[] = [];
      for (const batches of [1, dataset.validationBatches]) {
        const end = Math.min(1 + batches * BATCH_SIZE * SEQ_LEN, ids.length);
        let nats = 0, length = 0;
        for (let i = 1; i < end; i++) {
          nats += ids[i] % 7 + 1;
          length += bytes[i];
        }
        const values = await evaluate(engine, { dataset, batches });
        near(values["val/bpb"], nats / Math.LN2 / length, 1e-12, `${batches} batches`);
        found.push(length / (end - 1));
      }
      // The first batch's tokens are shorter than the split's: its mean would have been far off.
      if (tokenizer !== "byte") assert(found[1] > 1.2 * found[0], found.join());
    }));
}

Deno.test("training and eval report the same bits a byte of a mixed text", () =>
  withFiles({ "mixed.txt": MIXED }, async (cwd) => {
    const folder = await trainIn(
      cwd,
      ...SMALL.filter((arg) => !arg.startsWith("steps=")),
      ...["recipe=dense", "steps=1", "data=mixed.txt", "tokenizer=char", "name=mixed"],
    );
    const logged = readMetrics(join(folder, "metrics.jsonl")).at(-1)! as Record<string, number>;
    const scored = VALIDATION.slice(1, 1 + BATCH_SIZE * SEQ_LEN);
    assert.equal(Buffer.byteLength(scored), scored.length, "one byte a character");
    near(logged["val/bpb"], logged["val/loss"] / Math.LN2, 1e-12);
    const report = await evaluated(cwd, "runs/mixed");
    near(report.bitsPerByte!, report.loss / Math.LN2, 1e-12);
    const all = await evaluated(cwd, "runs/mixed", "evalBatches=9");
    const characters = [...VALIDATION].slice(1);
    const bytes = Buffer.byteLength(characters.join(""));
    near(all.bitsPerByte!, all.loss * characters.length / Math.LN2 / bytes, 1e-12);
  }));
