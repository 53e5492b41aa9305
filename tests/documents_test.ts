/** Corpora of documents: how they are split, batched, and told of. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { readResults } from "../src/ablate/folder.ts";
import { openCorpus } from "../src/data/corpus.ts";
import { type Dataset, openDataset } from "../src/data/dataset.ts";
import { validationDocuments } from "../src/data/documents.ts";
import { Rng } from "../src/rng.ts";
import { readIdentity } from "../src/runs/run_folder.ts";
import { options, seed, withFiles } from "./data_case.ts";
import { evaluated } from "./eval_run.ts";
import { keepTales, TALES, TALES_DATA } from "./fake_registry.ts";
import { MODEL, run, trainIn } from "./train_run.ts";
import { userError } from "./user_error.ts";

const ABLATE = new URL("../src/commands/ablate.ts", import.meta.url).pathname;

Deno.test("documents are split by their names, none is on both sides", () => {
  const rng = new Rng(seed, "documents");
  for (let i = 0; i < 300; i++) {
    const count = 2 + rng.below(40);
    const documents = Array.from({ length: count }, (_, at) => {
      // Some files say the same.
      const text = rng.below(4) === 0 ? rng.below(5) : 1000 + at;
      return { name: `d${at}`, bytes: text % 97 * (text % 7) + 1, sha256: `${text}` };
    });
    const different = new Set(documents.map(({ sha256 }) => sha256)).size;
    if (different < 2) continue;
    const where = `seed ${seed}: ${JSON.stringify(documents)}`;
    const taken = validationDocuments(documents, "x");
    const [inside, outside] = [true, false].map((side) =>
      documents.filter(({ name }) => taken.has(name) === side)
    );
    assert(inside.length > 0 && outside.length > 0, where);
    const texts = new Set(inside.map(({ sha256 }) => sha256));
    assert(outside.every(({ sha256 }) => !texts.has(sha256)), where);
    const size = (some: readonly { bytes: number }[]) => some.reduce((sum, d) => sum + d.bytes, 0);
    const budget = size(documents) / 10;
    assert(size(inside) <= budget || texts.size === 1, where);
    if (different < count) continue;
    assert.deepEqual(validationDocuments(documents.toReversed(), "x"), taken, where);
    const smallest = Math.min(...outside.map(({ bytes }) => bytes));
    if (size(inside) <= budget) assert(size(inside) + smallest > budget, where);
    else assert.equal(size(inside), Math.min(...documents.map(({ bytes }) => bytes)), where);
  }
  const same = ["a", "b"].map((name) => ({ name, bytes: 9, sha256: "x" }));
  assert.match(userError(() => validationDocuments(same, "npm:x")), /has only one; name more$/);
  const order = [..."abcdefghijklmnopqrst"].map((name) => ({ name, bytes: 5, sha256: name }));
  const hash = (name: string) => createHash("sha256").update(name).digest("hex");
  const first = order.map(({ name }) => name).sort((a, b) => hash(a) < hash(b) ? -1 : 1);
  assert.deepEqual([...validationDocuments(order, "x")].sort(), first.slice(0, 2).sort());
});

/** Each validation window's text; batches have one. */
function windowsOf(dataset: Dataset): { text: string; bytes: number }[] {
  return Array.from({ length: dataset.validationBatches }, (_, i) => {
    const { tokens, targets, bytes } = dataset.batch("validation", i);
    const ids = [tokens[0], ...targets.filter((id) => id >= 0)];
    return { text: dataset.tokenizer!.decode(ids), bytes: bytes! };
  });
}

for (const tokenizer of ["byte", "char", "bpe"] as const) {
  Deno.test(`${tokenizer}: validation has whole documents, and no sequence crosses into another`, () =>
    withFiles({}, async (corpora) => {
      await keepTales(corpora);
      const asked = {
        ...{ data: TALES_DATA, corpora, tokenizer, batchSize: 1 },
        vocabSize: tokenizer === "bpe" ? 300 : 0,
      };
      const whole = (name: string) => TALES[name].endsWith("\n") ? TALES[name] : `${TALES[name]}\n`;
      const corpus = await openCorpus(TALES_DATA, { corpora });
      const names: string[] = [];
      for (const { split, document, pieces } of corpus.parts()) {
        const text = [...pieces].join("");
        if (split === "train") continue;
        names.push(document!.replace("tales@1.0.0/", ""));
        assert.equal(text, whole(names.at(-1)!));
      }
      assert(names.length > 1 && names.length < 8, names.join());
      for (const seqLen of [16, 50, 1000]) {
        const dataset = await openDataset(options({ ...asked, seqLen }));
        const { encode, decode } = dataset.tokenizer!;
        const [toIds, toText] = [encode.bind(dataset.tokenizer), decode.bind(dataset.tokenizer)];
        const expected = names.flatMap((name) => {
          const ids = toIds(whole(name));
          return Array.from({ length: Math.ceil((ids.length - 1) / seqLen) }, (_, window) => {
            const part = [...ids.subarray(window * seqLen, (window + 1) * seqLen + 1)];
            const bytes = tokenizer === "byte"
              ? part.length - 1
              : Buffer.byteLength(toText(part.slice(1)));
            return { text: toText(part), bytes };
          });
        });
        assert.deepEqual(windowsOf(dataset), expected);
      }
      const trained = Object.keys(TALES).sort().filter((name) => !names.includes(name)).map(whole);
      const [train] = corpus.parts();
      assert.equal([...train.pieces].join(""), trained.join(""));
      const dataset = await openDataset(options({ ...asked, seqLen: 40 }));
      // As ids: a window may end within a character.
      const all = dataset.tokenizer!.encode(trained.join("")).join();
      for (let i = 0; i < 20; i++) {
        const ids = dataset.batch("train", i).tokens.join();
        assert(`,${all},`.includes(`,${ids},`), `seed ${seed}`);
      }
    }));
}

Deno.test("license, bytes and hash of a corpus go into run, report and results", async () => {
  const cwd = await Deno.makeTempDir();
  const corpora = join(cwd, "corpora");
  await keepTales(corpora);
  const model = MODEL.filter((word) => !word.startsWith("data="));
  const args = [...model, "recipe=dense", "steps=2", `data=${TALES_DATA}`, "name=tales"];
  const folder = await trainIn(cwd, ...args);
  const identity = readIdentity(folder)!;
  const { bytes, sha256 } = await openCorpus(TALES_DATA, { corpora });
  assert.deepEqual([identity.bytes, identity.sha256], [bytes, sha256]);
  assert.deepEqual(identity.files, [TALES_DATA.slice("npm:".length)]);
  assert.equal(identity.documents, Object.keys(TALES).length);
  assert.equal(identity.packages![0].license, "CC0-1.0");
  const report = await Deno.readTextFile(join(folder, "report.html"));
  assert(report.includes("tales@1.0.0 (CC0-1.0)") && report.includes(sha256.slice(0, 8)));
  await trainIn(cwd, "resume=runs/tales", "steps=3");
  assert.deepEqual(readIdentity(folder), identity, "that of the part that was resumed");
  assert((await evaluated(cwd, "runs/tales")).loss > 0);

  const experiment = {
    question: "Which text was it?",
    config: {
      ...{ data: TALES_DATA, recipe: "dense", steps: 1, hiddenSize: 16, numHiddenLayers: 1 },
      ...{ numAttentionHeads: 2, intermediateSize: 16, batchSize: 2, seqLen: 32 },
    },
    variants: { one: {} },
  };
  const file = `export const experiment = ${JSON.stringify(experiment)};\n`;
  await Deno.writeTextFile(join(cwd, "which.ts"), file);
  const ablate = async () => {
    const words = ["which.ts", "evalBatches=1", "sampleTokens=0", "seeds=0"];
    const { code, stderr } = await run(ABLATE, words, cwd);
    assert.equal(code, 0, stderr);
    return readResults(join(cwd, "runs/which"))!.data;
  };
  assert.deepEqual(await ablate(), { [TALES_DATA]: identity });
  assert.deepEqual(await ablate(), { [TALES_DATA]: identity }, "also where nothing is left to do");
  const page = await Deno.readTextFile(join(cwd, "runs/which/report.html"));
  assert(page.includes("tales@1.0.0 (CC0-1.0)"));
  await Deno.remove(cwd, { recursive: true });
});
