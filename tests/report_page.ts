/** Tiny runs, and a look at their reports in a browser: for the tests of reports. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { findBrowser, Page } from "../src/report/page/browser.ts";

const TRAIN = new URL("../src/commands/train.ts", import.meta.url).pathname;
const TEXT = new URL("fixtures/moby_excerpt.txt", import.meta.url).pathname;
/** Would end a script element and complain, if it were not escaped. */
export const NASTY = "</script><script>console.error('escaped')</script><b>&amp;";

const decoder = new TextDecoder();

/** A command in a process of its own. */
export async function run(
  script: string,
  args: string[],
  cwd: string,
): Promise<{ code: number; stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", script, ...args],
    ...{ cwd, stdin: "null", stdout: "piped", stderr: "piped" },
  }).output();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Chromium is installed where there is none and we may: root on Debian or Ubuntu. */
export async function ensureBrowser(): Promise<void> {
  if (await findBrowser()) return;
  const command = "apt-get update && " +
    "apt-get install -y --no-install-recommends chromium fonts-dejavu-core";
  if (Deno.build.os === "linux" && Deno.uid() === 0) {
    console.log("no Chromium: installing Debian's, to look at reports");
    await new Deno.Command("sh", {
      args: ["-c", command],
      env: { DEBIAN_FRONTEND: "noninteractive" },
      ...{ stdin: "null", stdout: "null", stderr: "null" },
    }).output();
  }
  assert(await findBrowser(), `reports are tested in Chromium; install it, as root: ${command}`);
}

/** A run of all stages, small enough to be made in a moment. */
export async function tinyRun(cwd: string, name: string, ...more: string[]): Promise<string> {
  const args = [
    ...[`data=${TEXT}`, "hiddenSize=32", "numHiddenLayers=2", "numAttentionHeads=2"],
    ...["intermediateSize=48", "batchSize=2", "seqLen=32", "indexTopk=8", "recipe=dsa_twin"],
    ...["steps=8", "warmup.steps=4", "sparse.steps=4", "twin.steps=4", "logEvery=1"],
    ...["evalEvery=4", "evalBatches=1", "measureEvery=2", "sampleTokens=5"],
  ];
  const { code, stderr } = await run(TRAIN, [...args, `name=${name}`, ...more], cwd);
  assert.equal(code, 0, stderr);
  return join(cwd, "runs", name);
}

/** Ids of the figures that hold a drawing, by section. */
async function drawnFigures(page: Page): Promise<Record<string, string[]>> {
  return await page.evaluate(`Object.fromEntries(
    [...document.querySelectorAll("section")].map((section) => [
      section.id,
      [...section.querySelectorAll(".js-plotly-plot")]
        .filter((plot) => plot.querySelector(".main-svg .plot, .main-svg .subplot"))
        .map((plot) => plot.closest("figure").id),
    ]),
  )`) as Record<string, string[]>;
}

/** Texts in plots that lie on each other, and boxes that are too small for theirs. */
async function unreadable(page: Page): Promise<string[]> {
  return await page.evaluate(`(() => {
    const found = [];
    for (const plot of document.querySelectorAll(".js-plotly-plot")) {
      const texts = [...plot.querySelectorAll(".textpoint text, .annotation-text")]
        .map((text) => ({ text: text.textContent, box: text.getBoundingClientRect() }));
      texts.forEach(({ text, box: a }, i) => {
        for (const { text: other, box: b } of texts.slice(i + 1)) {
          const apart = a.right <= b.left || b.right <= a.left || a.bottom <= b.top ||
            b.bottom <= a.top;
          if (!apart) found.push(plot.id + ": " + text + " and " + other);
        }
      });
    }
    for (const box of document.querySelectorAll(".headlines div, figcaption")) {
      if (box.scrollWidth > box.clientWidth) found.push(box.textContent);
    }
    return found;
  })()`) as string[];
}

/** Opens a report in one theme, looks at the figures of some sections, and turns to the other. */
export async function checkFigures(
  path: string,
  expected: Record<string, string[]>,
  theme: "light" | "dark" = "light",
): Promise<void> {
  await using page = await Page.open(path, { theme });
  assert.deepEqual(page.complaints, []);
  assert.equal(await page.evaluate("document.documentElement.dataset.drawn"), theme);
  const drawn = await drawnFigures(page);
  for (const [section, ids] of Object.entries(expected)) {
    assert.deepEqual(drawn[section], ids, section);
  }
  const captions = await page.evaluate(
    `[...document.querySelectorAll("figcaption p")].map((p) => p.textContent.length)`,
  ) as number[];
  assert.equal(captions.length, Object.values(drawn).flat().length, "all figures are drawn");
  assert(captions.every((length) => length > 20), "each has a caption");
  assert.deepEqual(await unreadable(page), []);
  const background = `getComputedStyle(document.body).backgroundColor`;
  const before = await page.evaluate(background);
  await page.evaluate(`document.getElementById("theme").click()`);
  await page.evaluate(`new Promise(function look(done) {
    document.documentElement.dataset.drawn !== "${theme}" ? done() : setTimeout(look, 20, done);
  })`);
  assert.notEqual(await page.evaluate(background), before);
  assert.deepEqual(page.complaints, []);
}
