/** What all commands have in common. */
import assert from "node:assert/strict";
import { experimentNames } from "../src/config/experiment.ts";

const commands = {
  "ablate": ["commands/ablate.ts", /run nothing: give one experiment/],
  "eval": ["commands/eval.ts", /evaluate nothing: give one run or model folder/],
  "parity": ["commands/parity.ts", /compare nothing: give a folder/],
  "report": ["commands/report.ts", /report on nothing: give one run or ablation folder/],
  "sample": ["commands/sample.ts", /sample nothing: give one run or model folder/],
} as const;

/** Runs a command in a process of its own. */
async function runIn(path: string, ...args: string[]) {
  const cli = new URL(`../src/${path}`, import.meta.url).pathname;
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    ...{ args: ["run", "-A", "--no-check", cli, ...args], stdout: "piped", stderr: "piped" },
  }).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, out, err };
}

for (const [name, [path, missing]] of Object.entries(commands)) {
  Deno.test(`${name} without arguments prints its help and says what is missing`, async () => {
    const run = (...args: string[]) => runIn(path, ...args);
    const help = await run("--help");
    assert.deepEqual([help.code, help.err], [0, ""]);
    assert(help.out.startsWith(`usage: deno task ${name} <`), help.out);
    const nothing = await run();
    assert.deepEqual([nothing.code, nothing.out], [2, ""]);
    assert(nothing.err.startsWith(help.out), "the help");
    const rest = nothing.err.slice(help.out.length).trim();
    assert.match(rest, /^error: Cannot .*$/);
    assert.match(rest, missing);
  });
}

Deno.test("ablate takes every experiment by its name, also where a key has the same", async () => {
  for (const name of experimentNames()) {
    const { code, err } = await runIn("commands/ablate.ts", name, "size=enormous");
    assert.equal(code, 2);
    assert.match(err, /size=enormous: use real/, name);
  }
});
