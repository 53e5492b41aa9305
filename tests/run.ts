/**
 * `deno task test`: everything CI runs. Needs a WebGPU adapter; where there is none and we may
 * (root on Debian or Ubuntu), installs Mesa's software Vulkan, elsewhere prints the command.
 *
 * Arguments are passed on to `deno test`, e.g. `deno task test tests/corpus_test.ts`.
 */

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
const checks: [name: string, args: string[]][] = Deno.args.length
  ? [["tests", ["test", "-A", ...Deno.args]]]
  : [
    ["format", ["fmt", "--check"]],
    ["lint", ["lint"]],
    ["types", ["check"]],
    ["docs", ["doc", "--lint", "mod.ts"]],
    ["tests", ["test", "-A", "--no-check", "tests/"]],
    ["examples", ["test", "-A", "--doc", "mod.ts", "src/"]],
  ];
const failed: string[] = [];
for (const [name, args] of checks) {
  console.log(`\n== ${name}: deno ${args.join(" ")}`);
  if (await deno(args) !== 0) failed.push(name);
}
console.log(failed.length ? `\nfailed: ${failed.join(", ")}` : "\nall checks passed");
Deno.exit(failed.length ? 1 : 0);
