/**
 * Packages with damaged tarballs and registries that say anything; corpora that were kept and then
 * damaged: refused with one line, or the text is the one that was there.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { parsePackages } from "../../src/data/corpora/package_name.ts";
import { unpackTexts } from "../../src/data/corpora/unpack.ts";
import { openCorpus } from "../../src/data/corpus.ts";
import { Rng } from "../../src/rng.ts";
import { gzipped, keepTales, packed, TALES, TALES_DATA, tarOf } from "../fake_registry.ts";
import { type Findings, type Fuzzer, unclean } from "./fuzzer.ts";
import { mutateBytes, mutateText, pick } from "./mutate.ts";
import { randomText } from "./random_text.ts";

export const packageCorporaFuzzer: Fuzzer = { name: "packages", run };

/** Parts of names of data. */
const WORDS = ["npm:", "three", "@a/", "@", "1.0.0", "/", "*", ",", "..", "{a,b}", "^", " ", "\n"];

async function run({ seed, until }: Parameters<Fuzzer["run"]>[0]): Promise<Findings> {
  const rng = new Rng(seed, "packages");
  const corpora = await Deno.makeTempDir();
  await keepTales(corpora);
  const kept = [...Deno.readDirSync(corpora)].map(({ name }) => join(corpora, name))
    .map((path) => ({ path, bytes: Deno.readFileSync(path) }));
  const text = [...(await openCorpus(TALES_DATA, { corpora })).pieces()].join("");
  const entries = Object.entries(TALES).slice(0, 4)
    .map(([name, content]) => ({
      path: `package/${"long/".repeat(rng.below(30))}${name}`,
      content,
    }));
  const tarball = await packed(TALES);
  const failures: Findings["failures"] = [];
  let cases = 0;
  for (; !until(); cases++) {
    const kind = rng.below(4);
    let input = "";
    const error = await unclean(async () => {
      if (kind === 0) {
        input = Array.from({ length: 1 + rng.below(8) }, () => pick(rng, WORDS)).join("");
        parsePackages(rng.below(2) ? `npm:${input}` : input);
      } else if (kind === 1) {
        const bytes = rng.below(4) === 0
          ? mutateBytes(rng, tarball)
          : await gzipped(mutateBytes(rng, tarOf(entries, pick(rng, ["pax", "gnu"]))));
        input = bytes.toBase64();
        const files = { package: "p", version: "1.0.0", glob: pick(rng, ["**", "*.txt", "["]) };
        await unpackTexts({ bytes }, files, { data: "npm:p" });
      } else {
        const { path, bytes } = pick(rng, kept);
        const isJson = path.endsWith(".json");
        const damaged = isJson
          ? mutateText(rng, JSON.parse(new TextDecoder().decode(bytes)))
          : rng.below(2)
          ? mutateBytes(rng, bytes)
          : new TextEncoder().encode(randomText(rng, 40));
        input = `${path}: ${damaged.toBase64()}`;
        Deno.writeFileSync(path, damaged);
        const corpus = await openCorpus(TALES_DATA, { corpora });
        const found = [...corpus.pieces()].join("");
        // Names are the split's alone: they may change where the texts do not.
        if (!isJson || found.length === text.length) assert.equal(found, text);
      }
    });
    for (const { path, bytes } of kept) Deno.writeFileSync(path, bytes);
    if (error) failures.push({ input, error });
  }
  await Deno.remove(corpora, { recursive: true });
  return { cases, failures };
}
