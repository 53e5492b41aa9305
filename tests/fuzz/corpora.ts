/**
 * Texts of any bytes, in any number of files, read in pieces of any size: refused with one line, or
 * the same as the whole text at once, and it comes back from its ids.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { openCorpus } from "../../src/data/corpus.ts";
import { openDataset } from "../../src/data/dataset.ts";
import { UserError } from "../../src/errors.ts";
import { Rng } from "../../src/rng.ts";
import { type Findings, type Fuzzer, unclean } from "./fuzzer.ts";
import { mutateBytes, pick } from "./mutate.ts";
import { randomText } from "./random_text.ts";

export const corporaFuzzer: Fuzzer = { name: "corpora", run };

/** Names of data that are none, or odd. */
const ODD_NAMES = [
  "*",
  "*.txt",
  "[",
  "{a,b}*",
  "?",
  "**",
  "[!a]*",
  "{",
  "\\",
  "a\0b",
  ".",
  "..",
  "a.txt/b",
  "a.txt/*",
  "\n",
  "x".repeat(300),
  "link",
  "ring",
  "folder",
  "pipe",
];

async function run({ seed, until }: Parameters<Fuzzer["run"]>[0]): Promise<Findings> {
  const rng = new Rng(seed, "corpora");
  const root = await Deno.makeTempDir();
  await Deno.mkdir(join(root, "folder"));
  await Deno.symlink(join(root, "gone"), join(root, "link"));
  await Deno.symlink(join(root, "ring"), join(root, "ring"));
  await new Deno.Command("mkfifo", { args: [join(root, "pipe")] }).output();
  const failures: Findings["failures"] = [];
  let cases = 0;
  for (; !until(); cases++) {
    const files = ["a.txt", "b.txt", "c.txt"].slice(0, 1 + rng.below(3))
      .map((name) => ({ path: join(root, name), bytes: randomBytes(rng) }));
    for (const { path, bytes } of files) Deno.writeFileSync(path, bytes);
    const name = rng.below(4) === 0 ? pick(rng, ODD_NAMES) : files.length > 1 ? "*.txt" : "a.txt";
    const input = `${name}: ${files.map(({ bytes }) => new TextDecoder().decode(bytes)).join("|")}`;
    const whole = name === "*.txt" || name === "a.txt" ? wholeText(files, name) : undefined;
    const error = await unclean(() => check(rng, join(root, name), whole));
    if (error) failures.push({ input, error });
    for (const { path } of files) Deno.removeSync(path);
  }
  await Deno.remove(root, { recursive: true });
  return { cases, failures };
}

/** Text, text with damage, or any bytes. */
function randomBytes(rng: Rng): Uint8Array<ArrayBuffer> {
  const kind = rng.below(8);
  if (kind === 0) return Uint8Array.from({ length: rng.below(40) }, () => rng.below(256));
  const mark = rng.below(6) === 0 ? "\ufeff" : "";
  const text = new TextEncoder().encode(mark + randomText(rng, rng.below(150)));
  return kind === 1 ? mutateBytes(rng, text) : text;
}

/** The files of a name as one text; null where they are none. */
function wholeText(
  files: readonly { bytes: Uint8Array<ArrayBuffer> }[],
  name: string,
): string | null {
  try {
    const texts = (name === "a.txt" ? files.slice(0, 1) : files)
      .map(({ bytes }) => new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    return texts.reduce((all, text) => all + (all && !all.endsWith("\n") ? "\n" : "") + text);
  } catch {
    return null;
  }
}

/** @param whole undefined where it is not known what the name stands for */
async function check(rng: Rng, data: string, whole: string | null | undefined): Promise<void> {
  const pieces = { pieceBytes: 1 + rng.below(60), keptBytes: rng.below(2) * 1e6 };
  const tokenizer = pick(rng, ["byte", "char", "bpe"] as const);
  const sizes = { batchSize: 1 + rng.below(3), seqLen: 1 + rng.below(24) };
  const corpus = await openCorpus(data, pieces);
  const text = [...corpus.pieces()].join("");
  if (whole !== undefined) assert.equal(text, whole);
  assert.equal(text.length, corpus.length);
  assert.equal(new TextEncoder().encode(text).length, corpus.bytes);
  const options = { data, tokenizer, vocabSize: 256 + rng.below(50), seed: 1, ...sizes };
  const streamed = await openDataset({ ...options, ...pieces });
  const once = await openDataset({ ...options, pieceBytes: 1e6, keptBytes: 1e6 }).catch((error) => {
    // It was taken in pieces.
    throw error instanceof UserError ? new Error(error.message) : error;
  });
  assert.deepEqual(streamed.tokenizer!.toJSON(), once.tokenizer!.toJSON());
  assert.equal(streamed.unigramEntropy, once.unigramEntropy);
  assert.equal(streamed.validationBatches, once.validationBatches);
  for (let i = 0; i < Math.min(once.validationBatches, 9); i++) {
    assert.deepEqual(streamed.batch("validation", i), once.batch("validation", i));
  }
  for (let i = 0; i < 9; i++) assert.deepEqual(streamed.batch("train", i), once.batch("train", i));
  if (tokenizer !== "char") {
    assert.equal(once.tokenizer!.decode(once.tokenizer!.encode(text)), text);
  }
}
