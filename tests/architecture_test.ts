import assert from "node:assert/strict";
import {
  circles,
  crowdedFolders,
  type House,
  importsOf,
  sharedNames,
  trespasses,
  upwardImports,
} from "./architecture.ts";

/** The files of `src/`. */
function readHouse(folder = "src", house = new Map<string, string>()): Map<string, string> {
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    const path = `${folder}/${name}`;
    if (isDirectory) readHouse(path, house);
    else if (name.endsWith(".ts")) house.set(path, Deno.readTextFileSync(path));
  }
  return house;
}

const rules = { upwardImports, circles, crowdedFolders, trespasses, sharedNames };

for (const [name, rule] of Object.entries(rules)) {
  Deno.test(`the house has no ${name}`, () => {
    const house = readHouse();
    assert(house.size > 200, "the walk found the house");
    assert.deepEqual(rule(house), []);
  });
}

/** A house of `files`, each with the paths that it imports. */
function houseOf(files: Record<string, string[]>): House {
  return new Map(
    Object.entries(files).map(([file, paths]) => [
      file,
      paths.map((path) => `import { x } from "${path}";`).join("\n"),
    ]),
  );
}

Deno.test("imports are found however they are written, but not in comments", () => {
  const text = `/**
 * import { a } from "./in_a_comment.ts";
 */
import type { A } from "../text/a.ts";
export { b } from "./b.ts";
import {
  c,
} from "./c.ts";
const d = await import("./d.ts");
import "./e.ts";
// import { f } from "./f.ts";
import * as tf from "@tensorflow/tfjs-core";`;
  const rest = ["b", "c", "d", "e"].map((name) => `src/data/${name}.ts`);
  assert.deepEqual(importsOf("src/data/x.ts", text), ["src/text/a.ts", ...rest]);
});

Deno.test("an upward import and a room without a layer are found", () => {
  const house = houseOf({
    "src/ops/a.ts": ["../model/b.ts"],
    "src/model/b.ts": ["../ops/a.ts"],
    "src/attic/c.ts": [],
  });
  assert.deepEqual(upwardImports(house), [
    "src/ops/a.ts imports src/model/b.ts, which is above it",
    "src/attic/c.ts: no layer is named attic",
  ]);
});

Deno.test("circles of files and of folders are found, the root's files counting by themselves", () => {
  const files = houseOf({ "src/ops/a.ts": ["./b.ts"], "src/ops/b.ts": ["./a.ts"] });
  assert.deepEqual(circles(files), ["src/ops/a.ts → src/ops/b.ts → src/ops/a.ts"]);
  const folders = houseOf({
    "src/ops/token/a.ts": ["../select/b.ts"],
    "src/ops/select/b.ts": [],
    "src/ops/select/c.ts": ["../token/d.ts"],
    "src/ops/token/d.ts": [],
  });
  assert.deepEqual(circles(folders), ["src/ops/token → src/ops/select → src/ops/token"]);
  const root = houseOf({
    "src/errors.ts": [],
    "src/data/a.ts": ["../errors.ts"],
    "src/engine.ts": ["./data/a.ts"],
  });
  assert.deepEqual(circles(root), []);
});

Deno.test("crowded folders and a crowded root are found", () => {
  const many = (folder: string, count: number) =>
    Object.fromEntries(Array.from({ length: count }, (_, i) => [`${folder}/f${i}.ts`, []]));
  assert.deepEqual(crowdedFolders(houseOf({ ...many("src/ops", 16), ...many("src", 4) })), []);
  assert.equal(crowdedFolders(houseOf({ ...many("src/ops", 17), ...many("src", 5) })).length, 2);
});

Deno.test("kernels that import from outside, and a graph that imports a device, are found", () => {
  const house = houseOf({
    "src/kernels/a.ts": ["../errors.ts"],
    "src/graph/b.ts": ["../webgpu/device/device.ts", "../ops/op.ts"],
  });
  assert.deepEqual(trespasses(house), [
    "src/kernels/a.ts must not import src/errors.ts",
    "src/graph/b.ts must not import src/webgpu/device/device.ts",
  ]);
});

Deno.test("names that two files export are found, but not those of examples", () => {
  const house: House = new Map([
    ["src/a.ts", "export function f() {}\nexport interface G {}"],
    ["src/b.ts", "/**\n * export function f() {}\n */\nexport const G = 1;"],
  ]);
  assert.deepEqual(sharedNames(house), ["G is exported by src/a.ts and src/b.ts"]);
});
