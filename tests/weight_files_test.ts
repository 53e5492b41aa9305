import assert from "node:assert/strict";
import { join } from "node:path";
import { readSafetensors, writeSafetensors } from "../src/files/safetensors.ts";
import { loadModel } from "../src/runs/load_model.ts";
import { GOLDEN } from "./eval_run.ts";
import { refuses } from "./user_error.ts";

/** The golden model in two shards, with changes to its index. */
async function withShards(
  body: (
    folder: string,
    index: (change: Record<string, unknown>) => Promise<void>,
  ) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.copyFile(join(GOLDEN, "config.json"), join(folder, "config.json"));
    const { tensors } = await readSafetensors(join(GOLDEN, "weights.safetensors"));
    const shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    const names = [...tensors.keys()];
    const map = Object.fromEntries(names.map((name, i) => [name, shards[i % 2]]));
    for (const shard of shards) {
      const part = new Map([...tensors].filter(([name]) => map[name] === shard));
      await writeSafetensors(join(folder, shard), part);
    }
    const index = (change: Record<string, unknown>) =>
      Deno.writeTextFile(
        join(folder, "model.safetensors.index.json"),
        JSON.stringify({ metadata: {}, weight_map: { ...map, ...change } }),
      );
    await body(folder, index);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const typed = { data: "copy" };

Deno.test("a model in shards is the model in one file", () =>
  withShards(async (folder, index) => {
    await index({});
    const { parameters } = await loadModel(folder, typed);
    await Deno.copyFile(join(GOLDEN, "weights.safetensors"), join(folder, "model.safetensors"));
    const whole = await loadModel(folder, typed);
    assert(parameters.size > 10);
    assert.deepEqual(parameters, whole.parameters);
  }));

Deno.test("an index that does not fit its shards is refused in one line", () =>
  withShards(async (folder, index) => {
    const embedding = "model.embed_tokens.weight", norm = "model.norm.weight";
    const cases: [Record<string, unknown>, RegExp][] = [
      [{ extra: "model-00001-of-00002.safetensors" }, /00001-of.*: extra, .*, is missing/],
      [
        { [embedding]: "model-00001-of-00002.safetensors" },
        /embed_tokens\.weight, which .*00001-of/,
      ],
      [{ extra: "none.safetensors" }, /none\.safetensors: there is no such file/],
      [{ [norm]: "../model.safetensors" }, /file of model\.norm\.weight is "\.\.\/model/],
      [{ [norm]: 7 }, /file of model\.norm\.weight is 7/],
      [{ [norm]: undefined }, /has model\.norm\.weight, which/],
    ];
    for (const [change, message] of cases) {
      await index(change);
      await refuses(() => loadModel(folder, typed), message);
    }
    await Deno.writeTextFile(join(folder, "model.safetensors.index.json"), "{}");
    await refuses(() => loadModel(folder, typed), /index\.json: it has no weight_map/);
  }));
