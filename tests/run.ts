/**
 * `deno task test`: everything CI runs. Needs a WebGPU adapter; where there is none and we may
 * (root on Debian or Ubuntu), installs Mesa's software Vulkan, elsewhere prints the command.
 *
 * Arguments are passed on to `deno test`, e.g. `deno task test tests/corpus_test.ts`.
 */
import { fileURLToPath } from "node:url";

const PACKAGE = "mesa-vulkan-drivers";

async function run(command: string, args: string[], quiet = false): Promise<number> {
  const stdio = quiet ? "null" : "inherit";
  try {
    return (await new Deno.Command(command, {
      args,
      stdin: "null",
      stdout: stdio,
      stderr: stdio,
      env: { DEBIAN_FRONTEND: "noninteractive" },
    }).output()).code;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 127;
    throw error;
  }
}

const deno = (args: string[], quiet = false) => run(Deno.execPath(), args, quiet);

/**
 * Runs the tests in `tests/` in so many processes, whose output comes one after the other: a test
 * on a software adapter keeps little more than one core busy.
 */
async function testInParts(parts: number): Promise<number> {
  const files = testFiles(new URL("./", import.meta.url));
  const runs = Array.from({ length: parts }, (_, part) =>
    new Deno.Command(Deno.execPath(), {
      args: ["test", "-A", "--no-check", ...files.filter((_, i) => i % parts === part)],
      stdin: "null",
      stdout: part === 0 ? "inherit" : "piped",
      stderr: part === 0 ? "inherit" : "piped",
    }));
  const [first, ...others] = runs;
  const later = others.map((run) => run.output());
  const codes = [(await first.output()).code];
  for (const { code, stdout, stderr } of await Promise.all(later)) {
    await Deno.stdout.write(stdout);
    await Deno.stderr.write(stderr);
    codes.push(code);
  }
  return Math.max(...codes);
}

/** Paths of the test files in a folder, the largest first: these take the longest. */
function testFiles(folder: URL): string[] {
  const find = (folder: URL): URL[] =>
    [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) => {
      if (isDirectory) return find(new URL(`${name}/`, folder));
      return name.endsWith("_test.ts") ? [new URL(name, folder)] : [];
    });
  const size = (url: URL) => Deno.statSync(url).size;
  return find(folder).sort((a, b) => size(b) - size(a)).map((url) => fileURLToPath(url));
}

/** Asked in a process of its own: a driver installed a moment ago must be found. */
async function hasAdapter(): Promise<boolean> {
  const module = new URL("../src/webgpu/device/device.ts", import.meta.url).href;
  const code = `import { Gpu } from "${module}"; Deno.exit(await Gpu.open() ? 0 : 1);`;
  return await deno(["eval", code], true) === 0;
}

async function ensureAdapter(): Promise<boolean> {
  if (await hasAdapter()) return true;
  const command = `apt-get update && apt-get install -y --no-install-recommends ${PACKAGE}`;
  if (Deno.build.os === "linux" && Deno.uid() === 0) {
    console.log(`no WebGPU adapter: installing Debian's ${PACKAGE} (software Vulkan)`);
    await run("sh", ["-c", command], true);
    if (await hasAdapter()) return true;
  }
  console.error(`error: no WebGPU adapter; install one, e.g. as root: ${command}`);
  return false;
}

if (!await ensureAdapter()) Deno.exit(1);
const checks: Record<string, () => Promise<number>> = Deno.args.length
  ? { tests: () => deno(["test", "-A", ...Deno.args]) }
  : {
    format: () => deno(["fmt", "--check"]),
    lint: () => deno(["lint"]),
    types: () => deno(["check"]),
    docs: () => deno(["doc", "--lint", "mod.ts"]),
    tests: () => testInParts(Math.min(2, navigator.hardwareConcurrency)),
    examples: () => deno(["test", "-A", "--doc", "mod.ts", "src/"]),
  };
const failed: string[] = [];
for (const [name, check] of Object.entries(checks)) {
  console.log(`\n== ${name}`);
  if (await check() !== 0) failed.push(name);
}
console.log(failed.length ? `\nfailed: ${failed.join(", ")}` : "\nall checks passed");
Deno.exit(failed.length ? 1 : 0);
