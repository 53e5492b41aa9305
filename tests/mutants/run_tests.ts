/**
 * Runs tests on a changed copy of the repository, one process at a time, with low priority.
 *
 * @module
 */
import { join } from "node:path";

/** What tests say of a change. */
export interface Verdict {
  /**
   * - `killed`: a test failed, or did not end
   * - `survived`: all tests that reach it passed
   * - `unfinished`: those that there was time for passed
   */
  readonly status: "killed" | "survived" | "unfinished";
  /** The test file that failed. */
  readonly by?: string;
  /** Test files that ran. */
  readonly tests: number;
  /** Seconds that they took. */
  readonly seconds: number;
}

/** A test that takes this much longer than it did without the change hangs. */
const HANGS = 5;

/** A copy of the repository, in which tests run. */
export class TestRunner implements AsyncDisposable {
  readonly #root: string;
  readonly #limit: number;
  /** Seconds of each test file without a change; null where it fails or takes too long. */
  readonly #times = new Map<string, number | null>();

  private constructor(root: string, limit: number) {
    this.#root = root;
    this.#limit = limit;
  }

  /** Copies what git has or would have; `limit` is in seconds, for each change. */
  static async copy(root: string, limit: number): Promise<TestRunner> {
    const copy = await Deno.makeTempDir({ prefix: "mutants_" });
    const list = await new Deno.Command("git", {
      args: ["ls-files", "-z", "--cached", "--others", "--exclude-standard"],
      cwd: root,
    }).output();
    for (const path of new TextDecoder().decode(list.stdout).split("\0").filter(Boolean)) {
      await Deno.mkdir(join(copy, path, ".."), { recursive: true });
      await Deno.copyFile(join(root, path), join(copy, path));
    }
    return new TestRunner(copy, limit);
  }

  /** Runs the tests of a changed file until one fails or the time is over. */
  async judge(file: string, changed: string, tests: readonly string[]): Promise<Verdict> {
    const path = join(this.#root, file);
    let [seconds, ran, left] = [0, 0, false];
    for (const test of tests) {
      const usual = await this.#usual(test);
      if (usual === null || seconds + usual > this.#limit) {
        left ||= usual !== null;
        continue;
      }
      const original = await Deno.readTextFile(path);
      await Deno.writeTextFile(path, changed);
      const run = await this.#run(test, 10 + HANGS * usual);
      await Deno.writeTextFile(path, original);
      seconds += run.seconds;
      ran++;
      if (!run.passed) {
        return { status: "killed", by: test, tests: ran, seconds: Math.round(seconds) };
      }
    }
    const status = left || !ran ? "unfinished" : "survived";
    return { status, tests: ran, seconds: Math.round(seconds) };
  }

  async #usual(test: string): Promise<number | null> {
    if (!this.#times.has(test)) {
      const { passed, seconds } = await this.#run(test, this.#limit);
      this.#times.set(test, passed ? seconds : null);
    }
    return this.#times.get(test)!;
  }

  async #run(test: string, limit: number): Promise<{ passed: boolean; seconds: number }> {
    const args = ["test", "-A", "--no-check", "-q", "--fail-fast", test];
    const isUnix = Deno.build.os !== "windows";
    const started = performance.now();
    const { success } = await new Deno.Command(isUnix ? "nice" : Deno.execPath(), {
      args: isUnix ? ["-n", "19", Deno.execPath(), ...args] : args,
      cwd: this.#root,
      signal: AbortSignal.timeout(1000 * limit),
      ...{ stdin: "null", stdout: "null", stderr: "null" },
    }).output();
    return { passed: success, seconds: (performance.now() - started) / 1000 };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.#root, { recursive: true });
  }
}
