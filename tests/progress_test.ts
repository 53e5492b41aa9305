import assert from "node:assert/strict";
import { formatDuration, formatProgress, Progress } from "../src/train/progress.ts";

const update = {
  step: 120,
  label: "loss",
  loss: 3.4121,
  lr: 3e-4,
  stepMs: 41.2,
  tokensPerSecond: 51_234.4,
} as const;

function record(terminal: boolean, body: (progress: Progress) => void): string {
  let text = "";
  const output = {
    isTerminal: () => terminal,
    // One byte at a time, as a slow pipe might.
    writeSync(bytes: Uint8Array) {
      text += String.fromCharCode(bytes[0]);
      return 1;
    },
  };
  body(new Progress(2000, { output }));
  return text;
}

Deno.test("a progress line says step, loss, rate, time, speed and what is left", () => {
  assert.equal(
    formatProgress(2000, update),
    "step 00120/02000 (6.0%) | loss 3.412 | lr 3.0e-4 | 41.2 ms | 51,234 tok/s | eta 1.3m",
  );
  assert.match(formatProgress(2_000_000, update), /^step 0000120\/2000000 \(0\.0%\)/);
  assert.match(formatProgress(120, update), /\(100\.0%\).*eta 0s$/);
  assert.match(formatProgress(200, { ...update, label: "kl" }), /\| kl 3\.412 \|/);
});

Deno.test("durations", () => {
  assert.deepEqual(
    [0, 59, 59.6, 3596, 3599, 86_000, 86_400 * 1.5].map(formatDuration),
    ["0s", "59s", "1.0m", "59.9m", "1.0h", "23.9h", "1.5d"],
  );
});

Deno.test("a pipe gets plain lines", () => {
  const text = record(false, (progress) => {
    progress.update(update);
    progress.note("saved");
    progress.update({ ...update, step: 121 });
    progress.done();
  });
  assert(!text.includes("\r") && !text.includes("\x1b"));
  const lines = text.split("\n");
  assert.deepEqual(lines.map((line) => line.slice(0, 10)), [
    "step 00120",
    "saved",
    "step 00121",
    "",
  ]);
});

Deno.test("a terminal gets one line that is rewritten", () => {
  const term = Deno.env.get("TERM");
  Deno.env.set("TERM", "xterm");
  try {
    const text = record(true, (progress) => {
      progress.update(update);
      progress.update({ ...update, step: 121 });
      progress.note("saved");
      progress.update({ ...update, step: 122 });
      progress.done();
      progress.done();
    });
    assert.equal(text.match(/\n/g)?.length, 2);
    assert.equal(text.match(/\rstep/g)?.length, 3);
    assert(text.includes("\r\x1b[Ksaved\n\rstep 00122"));
    assert(text.endsWith("\x1b[K\n"));
  } finally {
    if (term === undefined) Deno.env.delete("TERM");
    else Deno.env.set("TERM", term);
  }
});
