import assert from "node:assert/strict";
import { join } from "node:path";
import { planRuns } from "../src/ablate/plan.ts";
import type { AblationResults, RunResult } from "../src/ablate/results.ts";
import { fitGrid, summarize } from "../src/ablate/summary.ts";
import { findBrowser, Page } from "../src/report/browser.ts";
import { writeAblationReport } from "../src/report/ablation_report.ts";
import { Rng } from "../src/rng.ts";

const TRAIN = new URL("../src/train/cli.ts", import.meta.url).pathname;
const REPORT = new URL("../src/report/cli.ts", import.meta.url).pathname;
const TEXT = new URL("fixtures/moby_excerpt.txt", import.meta.url).pathname;
/** Would end a script element and complain, if it were not escaped. */
const NASTY = "</script><script>console.error('escaped')</script><b>&amp;";

const decoder = new TextDecoder();

async function run(script: string, args: string[], cwd: string) {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", script, ...args],
    ...{ cwd, stdin: "null", stdout: "piped", stderr: "piped" },
  }).output();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Chromium is installed where there is none and we may: root on Debian or Ubuntu. */
async function ensureBrowser(): Promise<void> {
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
async function tinyRun(cwd: string, name: string, ...more: string[]): Promise<string> {
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

/** Opens a report in one theme, looks at the figures of some sections, and turns to the other. */
async function checkFigures(
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
  const background = `getComputedStyle(document.body).backgroundColor`;
  const before = await page.evaluate(background);
  await page.evaluate(`document.getElementById("theme").click()`);
  await page.evaluate(`new Promise(function look(done) {
    document.documentElement.dataset.drawn !== "${theme}" ? done() : setTimeout(look, 20, done);
  })`);
  assert.notEqual(await page.evaluate(background), before);
  assert.deepEqual(page.complaints, []);
}

Deno.test("the browser sees errors, exceptions and requests", async () => {
  await ensureBrowser();
  const folder = await Deno.makeTempDir();
  const path = join(folder, "bad.html");
  const bodies: [kind: string, body: string][] = [
    ["console", "<script>console.error('no')</script>"],
    ["exception", "<script>throw new Error('no')</script>"],
    ["request", "<img src='http://localhost:9/x.png'>"],
    ["request", "<script src='beside.js'></script>"],
  ];
  for (const [kind, body] of bodies) {
    const drawn = "<script>document.documentElement.dataset.drawn = 'light'</script>";
    await Deno.writeTextFile(path, `<!DOCTYPE html><body>${body}${drawn}`);
    await using page = await Page.open(path);
    assert(page.complaints.some((one) => one.kind === kind), `${body}: ${page.complaints}`);
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a run's report shows every figure, light and dark", async (t) => {
  await ensureBrowser();
  const cwd = await Deno.makeTempDir();
  const folder = await tinyRun(cwd, "tiny", `samplePrompt=${NASTY}`);
  const report = join(folder, "report.html");
  const training = ["loss", "gradients", "rates"];
  const indexer = [
    ...["mass", "kl", "mass-layers", "kl-layers", "agreement", "entropy", "shares", "swap"],
    "distance",
  ];
  const costs = ["time", "flops"];

  await t.step("after training, without maps", async () => {
    await checkFigures(report, {
      ...{ training, indexer, costs },
      latents: ["rank", "reconstruction", "spectrum"],
    });
    const html = await Deno.readTextFile(report);
    assert(!html.includes("<b>&amp;"), "texts are escaped");
    assert(html.includes("DSA") || html.includes("Selection does not"), "claims are answered");
  });

  await t.step("of the command, with maps", async () => {
    await Deno.remove(report);
    const { code, stdout, stderr } = await run(REPORT, ["runs/tiny"], cwd);
    assert.equal(code, 0, stderr);
    assert.equal(stdout.trim(), "runs/tiny/report.html");
    await checkFigures(report, { training, indexer, maps: ["maps-0", "maps-1"], costs }, "dark");
  });

  await t.step("figures as images", async () => {
    for (const out of ["loss.png", "loss.svg"]) {
      const args = ["runs/tiny", "figure=loss", `out=${out}`, "width=500"];
      const { code, stderr } = await run(REPORT, args, cwd);
      assert.equal(code, 0, stderr);
    }
    const png = await Deno.readFile(join(cwd, "loss.png"));
    assert.equal(decoder.decode(png.subarray(1, 4)), "PNG");
    assert.equal(new DataView(png.buffer).getUint32(16), 1000, "twice the width");
    assert.match(await Deno.readTextFile(join(cwd, "loss.svg")), /^<svg[^]*Loss[^]*<\/svg>/);
  });

  await t.step("a run that was killed at its start", async () => {
    const early = join(cwd, "runs/early");
    await Deno.mkdir(early);
    await Deno.copyFile(join(folder, "config.json"), join(early, "config.json"));
    const { code, stderr } = await run(REPORT, ["runs/early"], cwd);
    assert.equal(code, 0, stderr);
    await checkFigures(join(early, "report.html"), { costs: ["flops"] });
  });

  await t.step("wrong input", async () => {
    const wrong: [args: string[], message: RegExp][] = [
      [["runs/none"], /runs\/none: it holds neither/],
      [["runs/tiny", "figur=loss"], /"figur": did you mean figure\?/],
      [["runs/tiny", "figure=los"], /figure=los in \S+: did you mean loss\?/],
      [["runs/tiny", "figure=loss", "out=x.pdf"], /x\.pdf: its name must end in/],
      [["runs/tiny", "figure=loss", "theme=pink"], /theme=pink: expected light/],
      [["a", "b"], /a and b: give one/],
    ];
    for (const [args, message] of wrong) {
      const { code, stderr } = await run(REPORT, args, cwd);
      assert.equal(code, 2, stderr);
      assert.match(stderr, message);
      assert.equal(stderr.trim().split("\n").length, 1);
    }
  });
  await Deno.remove(cwd, { recursive: true });
});

/** Results as an ablation writes them, with numbers from a formula; all runs share one folder. */
function madeUpResults(
  axes: Record<string, (number | string)[]>,
  { folder, rng }: { folder: string; rng: Rng },
): AblationResults {
  const seeds = [0, 1];
  const plan = planRuns({ question: "?", config: { evalBatches: 1 }, axes, seeds });
  const runs = plan.runs.map(({ variant, axes, seed, delta }, i): RunResult => {
    const [r, k] = [axes.kvLoraRank ?? 32, axes.indexTopk ?? 8].map(Number);
    const loss = 3 + 4 / r + 2 / k + 3 / (r * k) + 0.01 * rng.normal();
    const share = (layer: number) => Math.min(1, k / 40 + layer / 10);
    const about = { variant, axes, seed, folder, delta };
    if (i === 1) return { ...about, status: "missing", metrics: {}, costs: {} };
    if (i === 2) {
      const error = `Training diverged at step 7: ${NASTY}`;
      return { ...about, status: "failed", error, failedStep: 7, metrics: {}, costs: {} };
    }
    return {
      ...about,
      status: "done",
      metrics: {
        "val/loss": loss,
        "index/captured_mass": share(1),
        ...Object.fromEntries([0, 1].flatMap((layer) => [
          [`index/${layer}/captured_mass`, share(layer)],
          [`index/${layer}/dense_kl`, 1 - share(layer)],
          [`latent/${layer}/effective_rank`, r / (layer + 2)],
        ])),
      },
      costs: {
        "parameters": 1e5 + r,
        "cache/storedBytes": 8 * r + 64,
        "cache/readBytes": 1000 + 8 * r * k,
        ...Object.fromEntries(
          [["projections", 1e4 + r], ["core", 1e3 * k], ["indexer", 5e3], ["mlp", 4e4], [
            "head",
            1e4,
          ]]
            .map(([name, value]) => [`flopsPerToken/${name}`, value]),
        ),
        "flopsPerToken/total": 65e3 + r + 1e3 * k,
        "time/dense/step_ms": 10,
        "time/sparse/step_ms": 5 + k / 4,
        ...(k === 8 ? { "gpu/sparse/attention_ms": 3, "gpu/sparse/topk_ms": 1 } : {}),
      },
      evaluations: {
        "k=4": { "val/loss": loss + 0.2, "index/captured_mass": 0.3 },
        "k=16": { "val/loss": loss - 0.05, "index/captured_mass": 0.6 },
      },
    };
  });
  const baseline = "indexTopk" in axes ? { indexTopk: axes.indexTopk.at(-1)! } : undefined;
  const tabulate = ["val/loss", "index/captured_mass", "k=4/val/loss"];
  return {
    ...{ experiment: "made_up", size: "smoke", adapter: "none", git: null, axes: plan.axes },
    question: `Is this escaped: ${NASTY}?`,
    expect: "Figures",
    ...{ tabulate, baseline, runs, finished: false },
    summary: summarize(runs, baseline),
    fit: fitGrid(runs, { axes: plan.axes, metrics: tabulate }),
  };
}

Deno.test("an ablation's report shows every figure", async (t) => {
  await ensureBrowser();
  const seed = Math.floor(Math.random() * 2 ** 32);
  const rng = new Rng(seed, "report");
  const cwd = await Deno.makeTempDir();
  await tinyRun(cwd, "shared");
  const write = async (results: AblationResults) => {
    await Deno.writeTextFile(join(cwd, "results.json"), JSON.stringify(results));
    return await writeAblationReport(cwd);
  };
  const curves = [
    ...["loss", "validation", "mass", "kl", "mass-layers", "kl-layers", "rank-layers"],
  ];
  const pareto = ["pareto-read", "pareto-stored", "pareto-flops"];

  await t.step(`a grid, seed ${seed}`, async () => {
    const axes = { kvLoraRank: [16, 32, 64], indexTopk: [8, 16, 32] };
    const path = await write(madeUpResults(axes, { folder: "runs/shared", rng }));
    await checkFigures(path, {
      results: ["variants"],
      axes: [
        ...["grid", "difference", "interaction"],
        ...["line-0", "line-0-swapped", "line-1", "line-1-swapped"],
      ],
      evaluations: ["evaluations-0", "evaluations-1"],
      ...{ pareto, curves, costs: ["flops", "time-sparse"], unfinished: [] },
    });
    const html = await Deno.readTextFile(path);
    assert(html.includes("diverged at step 7"), "failed runs are listed");
  });

  await t.step("a grid for each data set", async () => {
    const axes = { data: ["copy", "recall"], kvLoraRank: [16, 32], indexTopk: [16, 32] };
    const path = await write(madeUpResults(axes, { folder: "runs/shared", rng }));
    await checkFigures(path, {
      results: ["variants-data-copy", "variants-data-recall"],
      curves: [
        ...["copy", "recall"].flatMap((data) =>
          curves.slice(0, 4).map((id) => `${id}-data-${data}`)
        ),
        ...curves.slice(4),
      ],
      pareto: ["copy", "recall"].flatMap((data) => pareto.map((id) => `${id}-data-${data}`)),
      costs: ["flops", "time"],
    });
  });

  await t.step("one axis", async () => {
    const axes = { kvLoraRank: [16, 32, 64] };
    const path = await write(madeUpResults(axes, { folder: "runs/shared", rng }));
    await checkFigures(path, { results: ["variants"], axes: ["line-0", "line-1"] });
  });

  await t.step("one variant, nothing done", async () => {
    const results = madeUpResults({ kvLoraRank: [16] }, { folder: "runs/none", rng });
    const runs = results.runs.map((run): RunResult => ({
      ...run,
      ...{ status: "missing", metrics: {}, costs: {}, evaluations: undefined },
    }));
    const path = await write({ ...results, runs, summary: summarize(runs) });
    await checkFigures(path, { unfinished: [] });
  });
  await Deno.remove(cwd, { recursive: true });
});
