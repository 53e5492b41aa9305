/**
 * Lists of tokens whose far context matters, damaged: refused with one line, or their mean is finite.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { listContent, readLongTokens, reportLongTokens } from "../../src/eval/long_tokens.ts";
import { writeSafetensors } from "../../src/files/safetensors.ts";
import { Rng } from "../../src/rng.ts";
import { type Findings, type Fuzzer, unclean } from "./fuzzer.ts";
import { mutateBytes } from "./mutate.ts";

export const longTokensFuzzer: Fuzzer = { name: "longTokens", run };

async function run({ seed, until }: Parameters<Fuzzer["run"]>[0]): Promise<Findings> {
  const rng = new Rng(seed, "longTokens");
  const folder = await Deno.makeTempDir();
  const file = join(folder, "list.safetensors");
  const places = Int32Array.of(3, 70, 99);
  const losses = new Float32Array(100).fill(1);
  const { tensors, metadata } = listContent(
    { places, long: new Float32Array(3), short: new Float32Array(3) },
    {
      ...{ data: "code", dataSha256: "a", tokensSha256: "b", seqLen: 128 },
      ...{ reference: "runs/x", referenceSha256: "c" },
    },
  );
  await writeSafetensors(file, tensors, { metadata });
  const whole = Deno.readFileSync(file);
  const failures: Findings["failures"] = [];
  let cases = 0;
  for (; !until(); cases++) {
    const damaged = mutateBytes(rng, whole);
    Deno.writeFileSync(file, damaged);
    const error = await unclean(async () => {
      const list = await readLongTokens(file, { sha256: "a" });
      const { loss, tokens } = reportLongTokens(list, { losses }, "b");
      assert.equal(loss, tokens ? 1 : null);
    });
    if (error) failures.push({ input: damaged.toBase64(), error });
  }
  await Deno.remove(folder, { recursive: true });
  return { cases, failures };
}
