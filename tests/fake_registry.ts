/** A registry of npm packages on this machine, and the tarballs that it has. */
import { createHash } from "node:crypto";
import { openCorpus } from "../src/data/corpus.ts";
import { excerpt } from "./data_case.ts";

/** Bytes of a file, or its text. */
export type Content = string | Uint8Array<ArrayBuffer>;

/** An entry of a tar archive, as it is written. */
export interface TarEntry {
  readonly path: string;
  readonly content: Content;
  /** `0` is a file, `2` a link, `5` a folder. */
  readonly kind?: string;
}

const encoder = new TextEncoder();

function bytesOf(content: Content): Uint8Array<ArrayBuffer> {
  return typeof content === "string" ? encoder.encode(content) : content;
}

/** A tar archive; paths longer than 100 bytes have a header of their own, pax or GNU. */
export function tarOf(
  entries: readonly TarEntry[],
  longNames: "pax" | "gnu" = "pax",
): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  const add = (path: string, content: Uint8Array, kind: string) => {
    const header = new Uint8Array(512);
    const put = (text: string, at: number) => header.set(encoder.encode(text), at);
    header.set(encoder.encode(path).subarray(0, 100), 0);
    put("0000644\0", 100);
    put(content.length.toString(8).padStart(11, "0"), 124);
    put(kind, 156);
    put("ustar\0" + "00", 257);
    put("        ", 148);
    const sum = header.reduce((a, b) => a + b, 0);
    put(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
    parts.push(header, content, new Uint8Array((512 - content.length % 512) % 512));
  };
  for (const { path, content, kind = "0" } of entries) {
    if (encoder.encode(path).length > 100) {
      if (longNames === "gnu") {
        add("././@LongLink", encoder.encode(`${path}\0`), "L");
      } else {
        // The line counts the digits of its own length.
        const rest = encoder.encode(` path=${path}\n`).length;
        let length = rest;
        while (String(length).length + rest !== length) length++;
        add("PaxHeader", encoder.encode(`${length} path=${path}\n`), "x");
      }
    }
    add(path, bytesOf(content), kind);
  }
  parts.push(new Uint8Array(1024));
  return joined(parts);
}

function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** Bytes as gzip packs them. */
export function gzipped(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  return new Response(new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip")))
    .bytes();
}

/** The tarball of a package with some files. */
export function packed(files: Readonly<Record<string, Content>>): Promise<Uint8Array<ArrayBuffer>> {
  const entries = Object.entries(files)
    .map(([name, content]) => ({ path: `package/${name}`, content }));
  return gzipped(tarOf(entries));
}

/** What a registry says of a version, and gives. */
export interface FakePackage {
  readonly tarball: Uint8Array<ArrayBuffer>;
  /** What it announces in `dist`, where that is not the truth. */
  readonly dist?: Readonly<Record<string, unknown>>;
}

/**
 * Serves packages, by `name@version`, while `body` runs; what is fetched in it comes from there.
 *
 * @param body is given the paths that are asked for
 */
export async function withRegistry(
  packages: Readonly<Record<string, FakePackage>>,
  body: (asked: string[]) => Promise<void>,
): Promise<void> {
  const asked: string[] = [];
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, (request) => {
    const path = decodeURIComponent(new URL(request.url).pathname).slice(1);
    asked.push(path);
    const isTarball = path.startsWith("tarballs/");
    const name = isTarball ? path.slice("tarballs/".length) : path.replace(/\/([^/]*)$/, "@$1");
    const found = packages[name];
    if (!found) return new Response("no", { status: 404 });
    if (isTarball) return new Response(found.tarball);
    const integrity = `sha512-${createHash("sha512").update(found.tarball).digest("base64")}`;
    // As a mirror does that passes on what npm says.
    const tarball = `https://registry.npmjs.org/tarballs/${name}`;
    return Response.json({ dist: found.dist ?? { tarball, integrity } });
  });
  const before = Deno.env.get("NPM_CONFIG_REGISTRY");
  Deno.env.set("NPM_CONFIG_REGISTRY", `http://127.0.0.1:${server.addr.port}`);
  try {
    await body(asked);
  } finally {
    if (before === undefined) Deno.env.delete("NPM_CONFIG_REGISTRY");
    else Deno.env.set("NPM_CONFIG_REGISTRY", before);
    await server.shutdown();
  }
}

/** Files of a package: twenty pieces of a text, and one that has nothing to be scored. */
export const TALES: Readonly<Record<string, string>> = {
  ...Object.fromEntries(Array.from(
    { length: 20 },
    (_, i) => [`tale${i}.txt`, excerpt.slice(i * 700, i * 700 + 300 + 20 * i)],
  )),
  "one.txt": "",
};

/** What they are called as data. */
export const TALES_DATA = "npm:tales@1.0.0/*.txt";

/** Fetches them into a folder. */
export async function keepTales(corpora: string): Promise<void> {
  const tarball = await packed({ "package.json": '{"license": "CC0-1.0"}', ...TALES });
  await withRegistry({ "tales@1.0.0": { tarball } }, async () => {
    await openCorpus(TALES_DATA, { corpora });
  });
}
