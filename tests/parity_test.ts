/** `deno task parity`: golden vectors, and what it says of folders that it cannot compare. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { compareWithGolden, type ParityCase } from "../src/eval/parity.ts";
import { tiedRows } from "../src/eval/tied_rows.ts";
import { readSafetensors, type TensorData, writeSafetensors } from "../src/files/safetensors.ts";

const CLI = new URL("../src/commands/parity.ts", import.meta.url).pathname;
const GOLDEN = new URL("golden/even", import.meta.url).pathname;

async function parity(...args: string[]) {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    ...{ args: ["run", "-A", CLI, ...args], stdin: "null", stdout: "piped", stderr: "piped" },
  }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

type Edit = (tensors: Map<string, TensorData>) => void;
const float = { shape: [2], data: Float32Array.of(1, 2) };

const WRONG: [name: string, file: string, edit: Edit | string | null, message: RegExp][] = [
  ["no config.json", "config.json", null, /config\.json is missing/],
  ["a damaged config.json", "config.json", "{", /config\.json is damaged/],
  ["another model's config.json", "config.json", '{"model_type":"gpt2"}', /model_type="gpt2"/],
  ["no weights", "weights.safetensors", null, /weights\.safetensors: there is no such file/],
  [
    "a weight too few",
    "weights.safetensors",
    (tensors) => tensors.delete("model.norm.weight"),
    /weights\.safetensors: model\.norm\.weight is missing/,
  ],
  [
    "a foreign weight",
    "weights.safetensors",
    (tensors) => tensors.set("model.layers.0.mlp.experts.0.weight", float),
    /no parameter model\.layers\.0\.mlp\.experts\.0\.weight/,
  ],
  [
    "a weight of another shape",
    "weights.safetensors",
    (tensors) => tensors.set("model.norm.weight", float),
    /model\.norm\.weight is F32 \[2\], but the model needs F32 \[32\]/,
  ],
  [
    "no tokens",
    "golden.safetensors",
    (tensors) => tensors.delete("input_ids"),
    /golden\.safetensors has no input_ids/,
  ],
  [
    "tokens that are none",
    "golden.safetensors",
    (tensors) => tensors.set("input_ids", float),
    /input_ids of golden\.safetensors are no integers \[batch, length\], but \[2\]/,
  ],
  [
    "a golden tensor that is not known",
    "golden.safetensors",
    (tensors) => tensors.set("dense.entropy", float),
    /nothing here computes entropy/,
  ],
  [
    "nothing to compare",
    "golden.safetensors",
    (tensors) => {
      for (const name of [...tensors.keys()]) if (name !== "input_ids") tensors.delete(name);
    },
    /golden\.safetensors has no tensors dense\.… or sparse\.…/,
  ],
];

Deno.test("parity with wrong input gives one clear line and exit code 2", async (t) => {
  const cwd = await Deno.makeTempDir();
  const expectLine = async (args: string[], message: RegExp) => {
    const { code, stdout, stderr } = await parity(...args, "--json");
    assert.deepEqual([code, stdout], [2, ""], stderr);
    assert.match(stderr, /^error: Cannot [^\n]+\n$/);
    assert.match(stderr, message);
  };
  for (const [name, file, edit, message] of WRONG) {
    await t.step(name, async () => {
      const folder = join(cwd, name.replaceAll(" ", "_"));
      await Deno.mkdir(folder);
      for (const own of ["config.json", "weights.safetensors", "golden.safetensors"]) {
        await Deno.copyFile(join(GOLDEN, own), join(folder, own));
      }
      const path = join(folder, file);
      if (edit === null) await Deno.remove(path);
      else if (typeof edit === "string") await Deno.writeTextFile(path, edit);
      else {
        const { tensors } = await readSafetensors(path);
        edit(tensors as Map<string, TensorData>);
        await writeSafetensors(path, tensors);
      }
      await expectLine([folder, "device=cpu"], message);
    });
  }
  await t.step("no folder", () => expectLine([join(cwd, "none")], /there is no such folder/));
  await t.step("a key", () => expectLine([GOLDEN, "foo=1"], /"foo": parity takes device/));
  await Deno.remove(cwd, { recursive: true });
});

Deno.test("golden vectors of transformers are met on WebGPU", async () => {
  const cases = ["deep", "even", "uneven"];
  const folders = cases.map((name) => new URL(`golden/${name}`, import.meta.url).pathname);
  const { code, stdout, stderr } = await parity(...folders, "device=webgpu", "--json");
  assert.equal(code, 0, stdout + stderr);
  const found: { case: string; ok: boolean; tensors: number; tiedRows: number }[] =
    JSON.parse(stdout).cases;
  assert.deepEqual(
    found.map(({ case: name, ok, tensors, tiedRows }) => [name, ok, tensors, tiedRows]),
    [["deep", true, 133, 0], ["even", true, 92, 0], ["uneven", true, 51, 0]],
  );
});

/** `golden/even` with all index scores of layer 1 at 0, and the selection of whoever takes the newest. */
async function tiedCase(
  folder: string,
  edit: (tensors: Map<string, TensorData>) => void = () => {},
) {
  await Deno.mkdir(folder);
  await Deno.copyFile(join(GOLDEN, "config.json"), join(folder, "config.json"));
  const rewrite = async (file: string, change: (tensors: Map<string, TensorData>) => void) => {
    const { tensors } = await readSafetensors(join(GOLDEN, file));
    change(tensors as Map<string, TensorData>);
    await writeSafetensors(join(folder, file), tensors);
  };
  await rewrite("weights.safetensors", (tensors) => {
    tensors.get("model.layers.1.self_attn.indexer.weights_proj.weight")!.data.fill(0);
  });
  await rewrite("golden.safetensors", (tensors) => {
    for (const mode of ["dense", "sparse"]) tensors.get(`${mode}.index_scores.1`)!.data.fill(0);
    const { data } = tensors.get("sparse.topk.1")!;
    // Six keys of 24.
    data.forEach((_, i) => {
      const [t, place] = [Math.floor(i / 6) % 24, i % 6];
      if (t >= 6) data[i] = t - 5 + place;
    });
    for (const name of [...tensors.keys()]) {
      if (/^dense\.(kl\.1|kl_grad\.model\.layers\.1)/.test(name)) tensors.delete(name);
    }
    edit(tensors);
  });
}

Deno.test("parity counts rows that tie, and leaves out what hangs on other keys of one score", async () => {
  const cwd = await Deno.makeTempDir();
  const compared = async (name: string, edit?: (tensors: Map<string, TensorData>) => void) => {
    const folder = join(cwd, name);
    await tiedCase(folder, edit);
    return await compareWithGolden(folder, { device: "cpu" });
  };
  const missed = ({ tensors }: ParityCase) =>
    tensors.filter(({ relative, tolerance }) => relative > tolerance).map(({ name }) => name);

  const tied = await compared("tied");
  assert.deepEqual(missed(tied), []);
  // Rows 6 to 23 of two sequences, in the last layer.
  assert.deepEqual([tied.tiedRows, tied.otherRows], [36, 36]);
  assert(tied.leftOut.includes("sparse.loss") && tied.leftOut.includes("sparse.kl.1"));
  assert(tied.leftOut.every((name) => /^sparse\.(loss|grad|kl\.1|kl_grad.*layers\.1)/.test(name)));
  const names = tied.tensors.map(({ name }) => name);
  for (const name of ["logits", "index_scores.1", "topk.1", "target.1", "kl.0", "topk.0"]) {
    assert(names.includes(`sparse.${name}`), name);
  }
  assert(names.some((name) => /^sparse\.kl_grad.*layers\.0/.test(name)));

  // Rows before the first tie, and layers before, are compared as ever.
  const cols = 40;
  const edits: [string, string, (data: TensorData["data"]) => void][] = [
    ["logits", "sparse.logits", (data) => data[5 * cols] += 1],
    ["logits of the other sequence", "sparse.logits", (data) => data[(24 + 5) * cols] += 1],
    ["a row that sees few keys", "sparse.topk.1", (data) => data[6 * 4] = 1],
    ["the layer before", "sparse.topk.0", (data) => data[6 * 20]++],
    ["scores of rows that tie", "sparse.index_scores.1", (data) => data[24 * 20 + 3] = 1],
    // What no rule selects is a difference even where rows tie.
    ["a key twice", "sparse.topk.1", (data) => data[6 * 20 + 1] = data[6 * 20]],
    ["a key that is not seen", "sparse.topk.1", (data) => data[6 * 20 + 5] = 21],
    ["too few keys", "sparse.topk.1", (data) => data[6 * 20 + 5] = -1],
  ];
  for (const [name, tensor, edit] of edits) {
    const changed = await compared(name, (tensors) => edit(tensors.get(tensor)!.data));
    assert(missed(changed).includes(tensor), `${name}: ${missed(changed)}`);
  }

  // Who tells nothing of selections may have selected anything where rows tie.
  const silent = await compared("silent", (tensors) => tensors.delete("sparse.topk.1"));
  assert.deepEqual([missed(silent), silent.tiedRows, silent.otherRows], [[], 36, 36]);

  const { code, stdout, stderr } = await parity(join(cwd, "tied"), "device=cpu");
  assert.equal(code, 0, stderr);
  assert.match(
    stdout,
    /within tolerance; 36 rows tie .*, 36 of them select other keys .* left out, \d+ tensors as a whole/,
  );
  await Deno.remove(cwd, { recursive: true });
});

Deno.test("what a tie changes: its row, later rows in later layers, and what is made from them", () => {
  // Two sequences of four tokens, one key each. The scores of a row are those of its own tokens.
  const scores = [[1, 1, 0, 2], [3, 0, 3, 3]].flatMap((row) => Array(4).fill(row).flat());
  const ours = [0, 0, 0, 3, 0, 0, 0, 0];
  const other = [0, 1, 0, 3, 0, 0, 2, 3];
  const rows = (text: string) => [...text].map((sign) => sign === "x");
  const all = { scores, ours, theirs: ours };

  // The ties: rows 1 and 2 of the first sequence, 2 and 3 of the second.
  const alike = tiedRows([all, all], 4);
  assert.deepEqual([alike.tied, alike.other], [8, 0]);
  assert.deepEqual(alike.logits, rows("........"));

  const last = tiedRows([all, { ...all, theirs: other }], 4);
  assert.deepEqual([last.tied, last.other], [8, 3]);
  assert.deepEqual(last.scores, [rows("........"), rows("........")]);
  assert.deepEqual(last.selections, [rows("........"), rows(".x....xx")]);
  assert.deepEqual(last.logits, rows(".x....xx"));

  const first = tiedRows([{ ...all, theirs: other }, all], 4);
  // Of the second layer nothing is left that could tie.
  assert.deepEqual([first.tied, first.other], [4, 3]);
  assert.deepEqual(first.scores, [rows("........"), rows(".xxx..xx")]);
  assert.deepEqual(first.selections, [rows(".x....xx"), rows(".xxx..xx")]);
  assert.deepEqual(first.logits, rows(".xxx..xx"));

  // A key of a lower score is no tie: row 3 of the first sequence, row 2 of it.
  const wrong = tiedRows([{ ...all, theirs: [0, 0, 2, 0, 0, 0, 0, 0] }], 4);
  assert.deepEqual([wrong.tied, wrong.other], [4, 0]);
  assert.deepEqual(wrong.logits, rows("........"));
  // Nor is a tie at the border what leaves a higher score out.
  const high = { scores: [5, 0, 0, 5, 1, 0, 5, 1, 1], ours: [0, -1, 0, 1, 0, 1] };
  const leaves = (theirs: number[]) => tiedRows([{ ...high, theirs }], 3).logits.includes(true);
  assert.deepEqual([leaves([0, -1, 0, 1, 0, 2]), leaves([0, -1, 0, 1, 1, 2])], [true, false]);
});
