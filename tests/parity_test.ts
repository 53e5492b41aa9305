/** `deno task parity`: golden vectors, and what it says of folders that it cannot compare. */
import assert from "node:assert/strict";
import { join } from "node:path";
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
  const found: { case: string; ok: boolean; tensors: number }[] = JSON.parse(stdout).cases;
  assert.deepEqual(
    found.map(({ case: name, ok, tensors }) => [name, ok, tensors]),
    [["deep", true, 133], ["even", true, 92], ["uneven", true, 51]],
  );
});
