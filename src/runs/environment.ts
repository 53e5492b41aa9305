/**
 * What a result may depend on besides the configuration: code, versions, machine.
 *
 * @module
 */

import type { DataIdentity } from "../data/identity.ts";

/** What {@linkcode describeEnvironment} cannot find out by itself. */
export interface EnvironmentOptions {
  /** `webgpu` or `cpu`. */
  readonly backend: string;
  /** The adapter's name, or what computes instead of one. */
  readonly adapter: string;
  readonly features?: readonly string[];
  readonly limits?: Readonly<Record<string, number>>;
  readonly seed: number;
  /** Of the text that is trained on; null or absent where there is none. */
  readonly data?: DataIdentity | null;
  /** The words of the command. */
  readonly argv: readonly string[];
}

/**
 * The content of `env.json`. Where git is missing, or the code does not lie in a repository, its
 * fields are null.
 */
export function describeEnvironment(options: EnvironmentOptions): Record<string, unknown> {
  const status = git("status", "--porcelain");
  return {
    started: new Date().toISOString(),
    argv: options.argv,
    seed: options.seed,
    data: options.data ?? null,
    git: { sha: git("rev-parse", "HEAD"), dirty: status === null ? null : status !== "" },
    versions: Deno.version,
    os: `${Deno.build.os} ${Deno.build.arch}`,
    cores: navigator.hardwareConcurrency,
    backend: options.backend,
    adapter: options.adapter,
    features: options.features ?? [],
    limits: options.limits ?? {},
  };
}

function git(...args: string[]): string | null {
  try {
    const { success, stdout } = new Deno.Command("git", {
      args,
      cwd: import.meta.dirname,
      stdin: "null",
      stderr: "null",
    }).outputSync();
    return success ? new TextDecoder().decode(stdout).trim() : null;
  } catch {
    return null;
  }
}
