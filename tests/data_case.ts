/** A text, options and files for the tests of data. */
import type { DatasetOptions } from "../src/data/dataset.ts";

/** Of this run of the tests; messages tell it. */
export const seed: number = Math.floor(Math.random() * 2 ** 50);
/** The file of {@linkcode excerpt}. */
export const excerptPath = `${import.meta.dirname}/fixtures/moby_excerpt.txt`;
/** A text of some kilobytes. */
export const excerpt: string = Deno.readTextFileSync(excerptPath);

/** Small batches of its bytes, or with `changes`. */
export function options(changes: Partial<DatasetOptions> = {}): DatasetOptions {
  return {
    data: excerptPath,
    tokenizer: "byte",
    vocabSize: 256,
    batchSize: 3,
    seqLen: 50,
    seed,
    ...changes,
  };
}

/** Makes a folder with files and removes it after `body`. */
export async function withFiles(
  files: Record<string, string | Uint8Array<ArrayBuffer>>,
  body: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    for (const [name, content] of Object.entries(files)) {
      const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
      await Deno.writeFile(`${folder}/${name}`, bytes);
    }
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
