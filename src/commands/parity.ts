/**
 * `deno task parity <folder>…`
 *
 * @module
 */
import { exitCodes, requireKeys, requireWords, runCommand, splitArguments } from "./command.ts";
import { parseOverrides } from "../config/config.ts";
import { compareWithGolden, type ParityCase, passes, worst } from "../eval/parity.ts";

const HELP = `usage: deno task parity <folder> ... [device=auto|webgpu|cpu] [--json] [--all]

  deno task parity tests/golden/*

Compares logits, loss and gradients with golden vectors from Hugging Face transformers, as
relative errors |ours - golden| / |golden| per tensor. Exit code 1 if one is out of tolerance.
Which of keys with equal index scores transformers selects is up to torch.topk: rows of a selection
that tie so at its border are counted, and left out with what follows from them where they differ.
--all lists every tensor, not only the worst of each case.`;

async function main(args: string[]): Promise<number> {
  const { flags, pairs, words } = splitArguments(args, ["--json", "--all"]);
  if (flags.has("--help")) {
    console.log(HELP);
    return exitCodes.done;
  }
  requireKeys("parity", pairs, ["device"]);
  requireWords(words, { verb: "compare", what: "a folder with golden vectors", help: HELP });
  const { device } = parseOverrides(pairs);
  const cases: ParityCase[] = [];
  for (const folder of words) {
    cases.push(await compareWithGolden(folder, { device, note: (line) => console.error(line) }));
  }
  console.log(flags.has("--json") ? toJson(cases) : toTable(cases, flags.has("--all")));
  return cases.every(passes) ? exitCodes.done : exitCodes.failed;
}

function toJson(cases: readonly ParityCase[]): string {
  return JSON.stringify({
    cases: cases.map((c) => {
      const { name, relative } = worst(c);
      const { tiedRows, otherRows, leftOut } = c;
      return {
        ...{ case: c.case, ok: passes(c), tensors: c.tensors.length, worst: { name, relative } },
        ...{ tiedRows, otherRows, leftOut: leftOut.length },
      };
    }),
  });
}

function toTable(cases: readonly ParityCase[], all: boolean): string {
  const rows = cases.flatMap((c) => (all ? c.tensors : [worst(c)]).map((t) => [c, t] as const));
  const width = Math.max(...rows.map(([, t]) => t.name.length));
  const lines = rows.map(([c, { name, relative, tolerance }]) =>
    `${c.case.padEnd(10)} ${(relative <= tolerance ? "ok" : "MISS").padEnd(4)} ` +
    `${name.padEnd(width)} ${relative.toExponential(2)} (allowed ${tolerance.toExponential(0)})`
  );
  const verdicts = cases.map((c) =>
    `${c.case}: ${c.tensors.length} tensors, ${passes(c) ? "all within tolerance" : "MISSED"}; ` +
    tiesOf(c)
  );
  return [cases[0].device, ...lines, ...verdicts].join("\n");
}

/** What is said of ties, and of what was not compared. */
function tiesOf({ tiedRows, otherRows, leftOut }: ParityCase): string {
  const tied = `${tiedRows} rows tie at the border of a selection`;
  if (!otherRows) return tied;
  return `${tied}, ${otherRows} of them select other keys of the same score: these rows and what ` +
    `follows from them are left out, ${leftOut.length} tensors as a whole`;
}

if (import.meta.main) await runCommand(main);
