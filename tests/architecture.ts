/**
 * The rules of the house, as functions of its imports: `architecture_test.ts` holds `src/` against
 * them, and each rule against a house that breaks it.
 *
 * @module
 */
import { dirname, join, normalize } from "node:path/posix";

/** Source texts by path, e.g. `src/ops/op.ts`. */
export type House = ReadonlyMap<string, string>;

/**
 * Rooms from the ground up: a file imports from its own room and from those below. A room is a
 * folder of `src/` or a file at its root.
 */
export const LAYERS: readonly string[] = [
  "errors.ts",
  "rng.ts",
  "text",
  "statistics",
  "metrics",
  "files",
  "kernels",
  "ops",
  "config",
  "data",
  "engine.ts",
  "graph",
  "tfjs",
  "webgpu",
  "open_device.ts",
  "model",
  "costs",
  "runs",
  "measure",
  "infer",
  "train",
  "eval",
  "ablate",
  "report",
  "bench",
  "doctor",
  "commands",
];

/** Most files of a folder, and of the root. */
const MOST_FILES = 16;
const MOST_ROOT_FILES = 4;

/** What a file imports from the house, comments left out; types count. */
export function importsOf(file: string, text: string): string[] {
  const code = text.replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, "");
  const found = code.matchAll(/(?:\bfrom\s+|\bimport\s*\(?\s*)"(\.[^"]+)"/g);
  return [...new Set([...found].map(([, path]) => normalize(join(dirname(file), path))))];
}

/** The room of a file: `src/kernels/token/add.ts` is in `kernels`. */
function roomOf(file: string): string {
  return file.split("/")[1];
}

/** Imports of rooms above, and rooms that no layer names. */
export function upwardImports(house: House): string[] {
  const out: string[] = [];
  for (const [file, text] of house) {
    const own = LAYERS.indexOf(roomOf(file));
    if (own < 0) out.push(`${file}: no layer is named ${roomOf(file)}`);
    for (const path of importsOf(file, text)) {
      if (LAYERS.indexOf(roomOf(path)) > own) {
        out.push(`${file} imports ${path}, which is above it`);
      }
    }
  }
  return out;
}

/** Circles of files, then of folders, a file at the root counting as one: the names along each. */
export function circles(house: House): string[] {
  const files = new Map([...house].map(([file, text]) => [file, importsOf(file, text)]));
  const folders = new Map<string, string[]>();
  for (const [file, paths] of files) {
    const folder = folderOf(file);
    const others = paths.map(folderOf).filter((other) => other !== folder);
    folders.set(folder, [...folders.get(folder) ?? [], ...others]);
  }
  return [...circlesIn(files), ...circlesIn(folders)];
}

function folderOf(file: string): string {
  return dirname(file) === "src" ? file : dirname(file);
}

/** Circles of a graph, each found where a walk meets a node that it is still on. */
function circlesIn(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (node: string): void => {
    if (path.includes(node)) {
      found.push([...path.slice(path.indexOf(node)), node].join(" → "));
    } else if (!done.has(node)) {
      path.push(node);
      for (const next of new Set(graph.get(node))) visit(next);
      path.pop();
      done.add(node);
    }
  };
  for (const node of graph.keys()) visit(node);
  return found;
}

/** Folders with too many files, the root with its own limit. */
export function crowdedFolders(house: House): string[] {
  const counts = Map.groupBy(house.keys(), (file) => dirname(file));
  return [...counts].flatMap(([folder, { length }]) => {
    const most = folder === "src" ? MOST_ROOT_FILES : MOST_FILES;
    return length > most ? [`${folder} has ${length} files, at most ${most} find their place`] : [];
  });
}

/** `kernels/` imports itself alone; `graph/` knows no device. */
export function trespasses(house: House): string[] {
  const out: string[] = [];
  for (const [file, text] of house) {
    for (const path of importsOf(file, text)) {
      const room = roomOf(path);
      const isForbidden = roomOf(file) === "kernels" && room !== "kernels" ||
        roomOf(file) === "graph" && ["webgpu", "tfjs", "open_device.ts"].includes(room);
      if (isForbidden) out.push(`${file} must not import ${path}`);
    }
  }
  return out;
}

/** Names that two files export. */
export function sharedNames(house: House): string[] {
  const places = new Map<string, string[]>();
  for (const [file, text] of house) {
    const code = text.replace(/\/\*[\s\S]*?\*\//g, "");
    const names = [...code.matchAll(
      /^export (?:declare |abstract )?(?:async )?(?:function\*?|const|class|interface|type|enum) (\w+)/gm,
    )].map(([, name]) => name);
    for (const name of new Set(names)) places.set(name, [...places.get(name) ?? [], file]);
  }
  return [...places].flatMap(([name, files]) =>
    files.length > 1 ? [`${name} is exported by ${files.join(" and ")}`] : []
  );
}
