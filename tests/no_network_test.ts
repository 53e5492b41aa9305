/** A network that takes what it is sent and never answers. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { within } from "../src/files/patience.ts";
import { readSummary } from "../src/runs/run_folder.ts";
import { keepTales, TALES_DATA } from "./fake_registry.ts";
import { CLI, decoder, MODEL } from "./train_run.ts";

/** Runs a command with an empty cache behind a proxy that never answers. */
async function behindSilence(args: string[], cwd: string) {
  using proxy = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accepted: Deno.Conn[] = [];
  const accepting = (async () => {
    for await (const connection of proxy) accepted.push(connection);
  })().catch(() => {});
  const { port } = proxy.addr as Deno.NetAddr;
  const url = `http://127.0.0.1:${port}`;
  const start = performance.now();
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", CLI, ...args],
    cwd,
    env: { DENO_DIR: join(cwd, "cache"), HTTPS_PROXY: url, HTTP_PROXY: url, NO_PROXY: "" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  proxy.close();
  await accepting;
  for (const connection of accepted) connection.close();
  return {
    code,
    connections: accepted.length,
    output: decoder.decode(stdout) + decoder.decode(stderr),
    seconds: (performance.now() - start) / 1000,
  };
}

Deno.test("what never comes is not waited for", async () => {
  assert.equal(await within(5, () => Promise.resolve("here")), "here");
  await assert.rejects(within(5, () => Promise.reject(new TypeError("own"))), TypeError);
  await assert.rejects(within(0.02, () => new Promise(() => {})), /nothing .* within 0\.02 s/);
});

Deno.test("a corpus that was neither fetched nor carried is refused soon, one that was is used", async () => {
  const cwd = await Deno.makeTempDir();
  const size = MODEL.filter((word) => !word.startsWith("data="));
  const args = [...size, "recipe=dense", "steps=2", "name=carried", `data=${TALES_DATA}`];
  const { code, output, connections, seconds } = await behindSilence(args, cwd);
  assert.equal(code, 2, output);
  assert(connections > 0, "the registry was asked");
  assert.match(output, /^error: Cannot fetch data=npm:tales.*copy the folder corpora\/ from a/m);
  assert(seconds < 40, `${seconds} s`);
  assert.throws(() => Deno.statSync(join(cwd, "runs")), Deno.errors.NotFound);
  await keepTales(join(cwd, "corpora"));
  const carried = await behindSilence(args, cwd);
  assert.equal(carried.code, 0, carried.output);
  assert.match(carried.output, /tales@1\.0\.0 \(CC0-1\.0\), .* 21 documents of which \d validate/);
  await Deno.remove(cwd, { recursive: true });
});

Deno.test("without an answer from the network a run ends, its report to be made later", async () => {
  const cwd = await Deno.makeTempDir();
  const args = [...MODEL, "recipe=dense", "steps=4", "name=alone"];
  const { code, output, connections, seconds } = await behindSilence(args, cwd);
  assert.equal(code, 0, output);
  assert(connections > 0, "the report's package was asked for");
  assert.match(output, /no report yet \(.*nothing has arrived within 5 s.*task report runs\/alone/);
  assert.equal(readSummary(join(cwd, "runs/alone"))!.status, "done");
  assert(seconds < 60, `${seconds} s`);
  await Deno.remove(cwd, { recursive: true });
});
