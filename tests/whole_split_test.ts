/** Evaluation of a whole validation split: documents, every token's loss, far contexts. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { type Batch, openDataset } from "../src/data/dataset.ts";
import { openCorpus } from "../src/data/corpus.ts";
import {
  chooseLongTokens,
  listContent,
  readLongTokens,
  reportLongTokens,
} from "../src/eval/long_tokens.ts";
import { reportSplit, scoreSplit, type SplitTokens } from "../src/eval/whole_split.ts";
import { readSafetensors, writeSafetensors } from "../src/files/safetensors.ts";
import { modelParameters } from "../src/model/parameters.ts";
import { denseView } from "../src/model/stage_view.ts";
import { languageModel } from "../src/model/transformer.ts";
import { openDevice } from "../src/open_device.ts";
import { loadModel } from "../src/runs/load_model.ts";
import { options, withFiles } from "./data_case.ts";
import { loadTokenizer } from "../src/data/tokenizer/tokenizers.ts";
import { EVAL, evaluated, near } from "./eval_run.ts";
import { keepTales, TALES, TALES_DATA } from "./fake_registry.ts";
import { refuses } from "./user_error.ts";
import { MODEL, run, TEXT, trainIn } from "./train_run.ts";

function sum(values: Iterable<number>): number {
  return [...values].reduce((a, b) => a + b, 0);
}

/** Scores a token by itself and the one before. */
const engine = {
  tokenLosses: ({ tokens, targets }: Batch) =>
    Promise.resolve(Float32Array.from(targets, (id, i) => id < 0 ? 0 : id % 7 + tokens[i] % 3 + 1)),
};

Deno.test("every token of every document is scored once, with its context", () =>
  withFiles({}, async (corpora) => {
    await keepTales(corpora);
    for (const [seqLen, batchSize] of [[16, 3], [50, 1], [1000, 2]]) {
      const dataset = await openDataset(options({ data: TALES_DATA, corpora, seqLen, batchSize }));
      const split = await scoreSplit(engine, { dataset, seqLen });
      const { documents, ...means } = reportSplit(split, dataset);
      let at = 0, nats = 0, bytes = 0;
      for (const [i, { name }] of dataset.validationDocuments.entries()) {
        const text = TALES[name!.replace("tales@1.0.0/", "")];
        const ids = new TextEncoder().encode(text.endsWith("\n") ? text : `${text}\n`);
        let own = 0;
        for (let j = 1; j < ids.length; j++, at++) {
          const loss = ids[j] % 7 + ids[j - 1] % 3 + 1;
          own += loss;
          assert.equal(split.losses[at], loss);
          assert.equal(split.tokens[at], ids[j]);
          assert.equal(split.contexts[at], (j - 1) % seqLen + 1);
          assert.equal(split.documents[at], i);
        }
        nats += own;
        bytes += ids.length - 1;
        const row = documents.find((row) => row.name === name);
        if (ids.length < 2) {
          assert.equal(row, undefined, "nothing of it is scored");
          continue;
        }
        assert.equal(row!.tokens, ids.length - 1);
        near(row!.loss, own / (ids.length - 1), 1e-12);
        near(row!.bitsPerByte, row!.loss / Math.LN2, 1e-12);
      }
      assert.equal(at, split.losses.length);
      assert.deepEqual([means.tokens, at], [at, bytes]);
      near(means.loss, nats / at, 1e-12);
      assert(documents.length > 1);
    }
  }));

Deno.test("tokens are chosen whose loss is small, and much larger with 64 bytes before alone", async () => {
  const length = 300;
  const contexts = Int32Array.from({ length }, (_, i) => i % 100 + 1);
  const tokens = Int32Array.from({ length }, (_, i) => i * 31 % 256);
  const losses = Float32Array.from({ length }, (_, i) => [0.5, 1.875, 2, 3][i % 4]);
  const split: SplitTokens = { losses, tokens, contexts, documents: new Int32Array(length) };
  const asked: number[] = [];
  // What the short context costs depends on the token.
  const cost = (token: number) => [2.5, 2.75, 3.875, 4][token % 4];
  const short = {
    tokenLosses({ tokens: given, targets }: Batch) {
      const found = new Float32Array(targets.length);
      targets.forEach((target, at) => {
        if (target < 0) return;
        assert.equal(at % 64, 63);
        const place = [...tokens.keys()].find((place) =>
          place >= 64 && contexts[place] > 64 && tokens[place] === target &&
          given.subarray(at - 63, at + 1).every((id, i) => id === tokens[place - 64 + i])
        );
        assert(place !== undefined, "the tokens before it, and no others");
        asked.push(place);
        found[at] = cost(target);
      });
      return Promise.resolve(found);
    },
  };
  const chosen = await chooseLongTokens(split, short, {
    bytes: new Uint8Array(length).fill(1),
    batchSize: 7,
  });
  const candidates = [...tokens.keys()].filter((i) => contexts[i] > 64 && losses[i] < 2);
  assert.deepEqual(asked, candidates);
  const right = candidates.filter((i) => cost(tokens[i]) - losses[i] > 2);
  assert.deepEqual([...chosen.places], right);
  assert(right.length > 0 && right.length < candidates.length);
  assert.deepEqual([...chosen.long], right.map((i) => losses[i]));
  assert.deepEqual([...chosen.short], right.map((i) => cost(tokens[i])));
});

Deno.test("the short context is 64 bytes, however many tokens these are", async () => {
  const length = 120;
  const bytes = Int32Array.from({ length }, (_, i) => [1, 5, 9, 70, 2, 3][i * 7 % 6]);
  const tokens = Int32Array.from({ length }, (_, i) => i);
  const contexts = Int32Array.from({ length }, (_, i) => i % 40 + 1);
  const losses = new Float32Array(length).fill(0.5);
  const split: SplitTokens = { losses, tokens, contexts, documents: new Int32Array(length) };
  const fitting = (place: number) => {
    let count = 0, sum = 0;
    while (place > count && sum + bytes[place - count - 1] <= 64) sum += bytes[place - ++count];
    return Math.max(1, count);
  };
  const asked: number[] = [];
  const short = {
    tokenLosses({ tokens: given, targets }: Batch) {
      targets.forEach((place, at) => {
        if (place < 0) return;
        const count = fitting(place);
        assert.equal(at % 64, count - 1);
        assert.deepEqual(
          [...given.subarray(at + 1 - count, at + 1)],
          [...tokens.subarray(place - count, place)],
        );
        asked.push(place);
      });
      return Promise.resolve(new Float32Array(targets.length).fill(3));
    },
  };
  const chosen = await chooseLongTokens(split, short, { bytes, batchSize: 5 });
  const candidates = [...tokens].filter((place) => {
    const count = fitting(place);
    const known = contexts[place] - 1;
    const sum = bytes.slice(place - count, place).reduce((sum, next) => sum + next, 0);
    return count < known || count === known && sum >= 64;
  });
  assert.deepEqual([...chosen.places], candidates);
  assert.deepEqual(asked, candidates);
  assert(candidates.length > 10 && candidates.some((place) => fitting(place) < 3));
});

Deno.test("a list that is damaged, or of other thresholds, is refused", () =>
  withFiles({}, async (folder) => {
    const file = join(folder, "list");
    const losses = new Float32Array(10).fill(1);
    const origin = {
      ...{ data: "x", dataSha256: "a", tokensSha256: "b", seqLen: 128 },
      ...{ reference: "runs/x", referenceSha256: "c" },
    };
    const read = async (places: number[], changes: Record<string, string> = {}) => {
      const none = new Float32Array(places.length);
      const list = { places: Int32Array.from(places), long: none, short: none };
      const { tensors, metadata } = listContent(list, origin);
      await writeSafetensors(file, tensors, { metadata: { ...metadata, ...changes } });
      return reportLongTokens(await readLongTokens(file, { sha256: "a" }), { losses }, "b");
    };
    assert.equal((await read([2, 9])).loss, 1);
    assert.equal((await read([])).loss, null);
    for (const places of [[2, 10], [-1, 2], [3, 3], [5, 4]]) {
      await refuses(() => read(places), /it is damaged; name another file, and a list is made$/);
    }
    await refuses(() => read([2], { seqLen: "64" }), /it is damaged/);
    await refuses(() => read([2], { shortContext: "32" }), /with the thresholds of this program/);
    await refuses(() => read([2], { leastGain: "1" }), /with the thresholds of this program/);
    await refuses(() => read([2], { format: "latentk long tokens 1" }), /no list of format/);
    await refuses(() => read([2], { dataSha256: "z" }), /of another text, data=x \(SHA-256 z…\)/);
  }));

Deno.test("the whole split by the command line: token losses, and a list for all models", async (t) => {
  const cwd = await Deno.makeTempDir();
  await keepTales(join(cwd, "corpora"));
  const size = MODEL.filter((word) => !/^(data|seqLen)=/.test(word));
  // Far from where training begins: losses of all sizes.
  const wide = ["seqLen=128", "initializerRange=1", "sampleTokens=0", `data=${TALES_DATA}`];
  const train = (...words: string[]) => trainIn(cwd, ...size, ...wide, ...words);
  await train("recipe=dense", "steps=1", "name=dense");
  const refused = async (words: string[], message: RegExp) => {
    const { code, stderr } = await run(EVAL, words, cwd);
    assert.equal(code, 2, stderr);
    assert.match(stderr.trim().split("\n").at(-1)!, message);
  };

  await t.step("means are those of the file, and the rest is as without", async () => {
    const plain = await evaluated(cwd, "runs/dense");
    const report = await evaluated(cwd, "runs/dense", "tokenLosses=all.safetensors");
    const { whole, ...rest } = report;
    assert.deepEqual(rest, plain);
    const { tensors, metadata } = await readSafetensors(join(cwd, "all.safetensors"));
    const losses = tensors.get("losses")!;
    assert.equal(losses.dtype, "F32");
    assert.equal(losses.data.length, whole!.tokens);
    near(sum(losses.data) / whole!.tokens, whole!.loss, 1e-5);
    const names = JSON.parse(metadata.documents) as string[];
    for (const { name, tokens, loss } of whole!.documents) {
      const own = losses.data.filter((_, i) => names[tensors.get("documents")!.data[i]] === name);
      assert.equal(own.length, tokens);
      near(sum(own) / tokens, loss, 1e-5);
    }
    const { sha256 } = await openCorpus(TALES_DATA, { corpora: join(cwd, "corpora") });
    assert.deepEqual([metadata.dataSha256, metadata.seqLen], [sha256, "128"]);
    const one = await evaluated(cwd, "runs/dense", "evalBatches=1000", "--whole");
    near(one.whole!.loss, one.loss, 1e-6);
    near(one.whole!.bitsPerByte, one.bitsPerByte!, 1e-6);
    assert.equal(one.whole!.tokenLosses, undefined);
  });

  await t.step("a list is made once, and is the same for others", async () => {
    const files = ["longTokens=list.safetensors", "tokenLosses=all.safetensors"];
    const { whole } = await evaluated(cwd, "runs/dense", ...files);
    const long = whole!.longTokens!;
    const list = await readSafetensors(join(cwd, "list.safetensors"));
    const losses = (await readSafetensors(join(cwd, "all.safetensors"))).tensors.get("losses")!;
    const places = [...list.tensors.get("places")!.data];
    assert(places.length > 0 && places.length === long.tokens);
    const [far, near64] = ["long", "short"].map((name) => list.tensors.get(name)!.data);
    assert.deepEqual([...far], places.map((place) => losses.data[place]));
    assert(far.every((loss, i) => loss < 2 && near64[i] - loss > 2));
    near(long.loss!, sum(far) / places.length, 1e-6);
    // Each by itself, as the model sees it with as many tokens before alone as are 64 bytes.
    const { config, parameters, tokenizer, tokenizerFile } = await loadModel(
      join(cwd, "runs/dense"),
    );
    const known = loadTokenizer(tokenizer!, tokenizerFile);
    using device = await openDevice("auto");
    using engine = await device.open({
      ...{ parameters: modelParameters(config), initial: parameters, trained: [] },
      loss: languageModel(config, { stage: denseView }),
      ...{ batchSize: 1, seqLen: 64 },
    });
    const ids = (await readSafetensors(join(cwd, "all.safetensors"))).tensors.get("tokens")!.data;
    const bytes = known.byteLengths(known.decode(ids), Int32Array.from(ids));
    const counts = new Set<number>();
    for (const [i, place] of places.entries()) {
      if (i % 9) continue;
      let first = place - 1;
      while (sum(bytes.subarray(first - 1, place)) <= 64) first--;
      const count = place - first;
      counts.add(count);
      const tokens = new Int32Array(64);
      tokens.set(Int32Array.from(ids.subarray(first, place)));
      const targets = new Int32Array(64).fill(-1).with(count - 1, ids[place]);
      const losses = await engine.tokenLosses({ tokens, targets, count: 1 });
      near(near64[i], losses[count - 1], 1e-3, `place ${place}`);
    }
    assert([...counts].every((count) => count < 64));
    assert.deepEqual([long.reference, long.seqLen], ["runs/dense, step 1", 128]);
    await train("recipe=dense", "steps=1", "seed=1", "name=other");
    const before = await Deno.readFile(join(cwd, "list.safetensors"));
    const other = (await evaluated(cwd, "runs/other", ...files)).whole!.longTokens!;
    assert.deepEqual(await Deno.readFile(join(cwd, "list.safetensors")), before);
    const { loss, ...same } = other;
    assert.deepEqual({ ...same, loss: long.loss }, long);
    const own = (await readSafetensors(join(cwd, "all.safetensors"))).tensors.get("losses")!.data;
    near(loss!, places.reduce((sum, place) => sum + own[place], 0) / places.length, 1e-6);
    const { stdout } = await run(EVAL, ["runs/other", ...files], cwd);
    assert.match(stdout, /^whole validation split, [\d,]+ tokens: loss [\d.]+ nats/m);
    assert.match(
      stdout,
      /^tokens whose far context matters, [\d,]+: loss .*chosen by runs\/dense/m,
    );
    assert.match(stdout, /^document +tokens +loss +bits a byte$/m);
  });

  await t.step("what does not fit is refused", async () => {
    const list = "longTokens=list.safetensors";
    await refused(["runs/dense", `data=${TEXT}`, list], /it is of another text, data=npm:tales/);
    const words = ["recipe=dense", "steps=1", "tokenizer=char", "name=chars"];
    await train(...words);
    await refused(["runs/chars", list], /those of another tokenizer/);
    // As many tokens, but others.
    await Deno.writeTextFile(join(cwd, "ascii.txt"), "Call me Ishmael. ".repeat(100));
    for (const tokenizer of ["byte", "char"]) {
      await train(
        "data=ascii.txt",
        "recipe=dense",
        "steps=1",
        `tokenizer=${tokenizer}`,
        `name=${tokenizer}`,
      );
    }
    await evaluated(cwd, "runs/byte", "longTokens=ascii");
    await refused(["runs/char", "longTokens=ascii"], /those of another tokenizer/);
    await refused(["runs/dense", "seqLen=64", "longTokens=new"], /seqLen=64 is no long context/);
    await refused(["runs/dense", "longTokens="], /Cannot set longTokens to nothing/);
    await refused(["runs/dense", "longTokns=x"], /did you mean longTokens/);
    await refused(["runs/dense", "longTokens=all.safetensors"], /no list of format/);
    await Deno.writeTextFile(join(cwd, "text"), "no list");
    await refused(["runs/dense", "longTokens=text"], /the file is damaged or of another kind/);
    await train("recipe=sparse", "steps=1", "name=sparse");
    await refused(["runs/sparse", "longTokens=new"], /the reference must attend to all/);
    assert((await evaluated(cwd, "runs/sparse", list)).whole!.longTokens!.loss! > 0);
    await trainIn(cwd, ...size, "data=copy", "recipe=dense", "steps=1", "name=copy");
    await refused(["runs/copy", "--whole"], /generated without end; set evalBatches/);
    assert.throws(() => Deno.statSync(join(cwd, "new")), Deno.errors.NotFound);
    const full = await run(EVAL, ["runs/dense", "tokenLosses=none/x"], cwd);
    assert.equal(full.code, 1);
    assert.match(full.stderr, /^error: Cannot write none\/x: /m);
  });
  await Deno.remove(cwd, { recursive: true });
});
