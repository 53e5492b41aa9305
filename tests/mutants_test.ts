/** What `deno task mutants` plants, and which tests it runs for it. */
import assert from "node:assert/strict";
import { codeOf, lineOf, mutantsOf, plant } from "./mutants/plant.ts";
import { testsOf } from "./mutants/reach.ts";
import { TestRunner } from "./mutants/run_tests.ts";

const SOURCE = `import { a } from "./a.ts";
/** Not 1 + 1. */
export function f(x: number, y: number): void {
  if (x < y) return; // never 2 + 2
  g(x, y);
  h("3 + 3", \`4 + 4 \${Math.sqrt(x) + 1} {\`);
}
`;

Deno.test("mutants change code alone, one place each", () => {
  const mutants = mutantsOf("src/f.ts", SOURCE);
  const found = mutants.map((mutant) => [lineOf(SOURCE, mutant).line, mutant.kind]);
  assert.deepEqual(found, [
    [3, "returns early"],
    [4, "guard removed"],
    [4, "< → <="],
    [5, "call removed"],
    [5, "arguments swapped"],
    [6, "call removed"],
    [6, "Math.sqrt( → ("],
    [6, "+ → -"],
    [6, "constant + 1"],
  ]);
  assert.match(plant(SOURCE, mutants[4]), /\n {2}g\(y, x\);\n/);
  assert.match(plant(SOURCE, mutants[6]), /4 \+ 4 \$\{\(x\) \+ 1\} \{/);
  const texts = mutants.map((mutant) => plant(SOURCE, mutant));
  assert.equal(new Set(texts).size, texts.length);
});

Deno.test("template strings of kernels are code", () => {
  const wgsl = "const w = `let x = 1u + y; // 2 + 2\n${z}`;\n";
  const kinds = (file: string) => mutantsOf(file, wgsl).map(({ kind }) => kind);
  assert.deepEqual(kinds("src/ops/x.ts"), []);
  assert.deepEqual(kinds("src/kernels/x.ts"), ["constant + 1", "+ → -"]);
  assert.equal(codeOf(wgsl, true).length, wgsl.length);
});

Deno.test("tests reach what they import, and commands that they name, nearest first", () => {
  const tests = testsOf(
    new Map([
      ["src/a.ts", ""],
      ["src/b.ts", 'import { a } from "./a.ts";'],
      ["tests/far_test.ts", 'new URL("../src/b.ts", import.meta.url)'],
      ["tests/near_test.ts", 'import { a } from "../src/a.ts";'],
    ]),
  );
  assert.deepEqual(tests.get("src/a.ts"), ["tests/near_test.ts", "tests/far_test.ts"]);
  assert.deepEqual(tests.get("src/b.ts"), ["tests/far_test.ts"]);
});

Deno.test("a change that a test sees is killed, another survives, and the copy is restored", async () => {
  const root = await Deno.makeTempDir();
  const sum = "export const sum = (a: number, b: number): number => a + b;\n";
  await Deno.writeTextFile(`${root}/sum.ts`, sum);
  await Deno.writeTextFile(
    `${root}/sum_test.ts`,
    'import { sum } from "./sum.ts";\nDeno.test("sum", () => { if (sum(0, 2) !== 2) throw 0; });\n',
  );
  await new Deno.Command("git", { args: ["init", "-q"], cwd: root }).output();
  await using runner = await TestRunner.copy(root, 60);
  const judge = async (changed: string) =>
    (await runner.judge("sum.ts", changed, ["sum_test.ts"])).status;
  assert.equal(await judge(sum.replace("a + b", "a - b")), "killed");
  assert.equal(await judge(sum.replace("a + b", "b - a")), "survived");
  assert.equal((await runner.judge("sum.ts", sum, [])).status, "unfinished");
  await Deno.remove(root, { recursive: true });
});
