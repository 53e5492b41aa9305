/**
 * Which registry npm packages come from, as npm and Deno are told it.
 *
 * @module
 */
import { homedir } from "node:os";
import { join } from "node:path";
import { readText } from "../../files/files.ts";

const NPM = "https://registry.npmjs.org/";

/**
 * The address of the registry of a package, ending in `/`: that of its scope in `.npmrc`, else
 * `NPM_CONFIG_REGISTRY`, else `registry` in `.npmrc`, else npm's own. The `.npmrc` of the working
 * folder goes before that of the home folder.
 *
 * @param options.files other `.npmrc` files, the first one goes before the others
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { registryOf } from "./npmrc.ts";
 *
 * const options = { env: { NPM_CONFIG_REGISTRY: "http://mirror" }, files: [] };
 * assert.equal(registryOf("three", options), "http://mirror/");
 * ```
 */
export function registryOf(
  name: string,
  options: { env?: Readonly<Record<string, string>>; files?: readonly string[] } = {},
): string {
  const { env = Deno.env.toObject(), files = [".npmrc", join(homedir(), ".npmrc")] } = options;
  const settings = Object.assign({}, ...files.map((file) => read(file, env)).reverse());
  const scope = name.startsWith("@") ? name.split("/", 1)[0] : null;
  const address = scope && settings[`${scope}:registry`] || env.NPM_CONFIG_REGISTRY ||
    env.npm_config_registry || settings.registry || NPM;
  return address.endsWith("/") ? address : `${address}/`;
}

/** The address of a tarball: npm's own registry is named where a mirror gave the description. */
export function tarballAddress(tarball: string, registry: string): string {
  return tarball.startsWith(NPM) ? registry + tarball.slice(NPM.length) : tarball;
}

/** `key = value` lines of an `.npmrc`, `${NAME}` being taken from the environment. */
function read(
  file: string,
  env: Readonly<Record<string, string>>,
): Record<string, string> {
  const settings: Record<string, string> = {};
  for (const line of (readText(file) ?? "").split("\n")) {
    const [, key, value] = line.match(/^\s*([^#;=\s][^=]*?)\s*=\s*(.*?)\s*$/) ?? [];
    if (key === undefined) continue;
    settings[key] = value.replace(/^"(.*)"$/, "$1")
      .replace(/\$\{([^}]+)\}/g, (all, name) => env[name] ?? all);
  }
  return settings;
}
