/** Reports of runs. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { saveDensity } from "../src/eval/density_file.ts";
import { metricInfo } from "../src/metrics/table.ts";
import { readMetrics } from "../src/runs/run_folder.ts";
import { resolveConfig } from "../src/config/config.ts";
import { mapSection } from "../src/report/run/map_figures.ts";
import type { LayerMaps } from "../src/report/run/sample_maps.ts";
import { Page } from "../src/report/page/browser.ts";
import { checkFigures, ensureBrowser, NASTY, run, tinyRun } from "./report_page.ts";

const REPORT = new URL("../src/commands/report.ts", import.meta.url).pathname;
const decoder = new TextDecoder();

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

Deno.test("of groups of heads that select for themselves each has its maps", () => {
  const one = new Float32Array([1]);
  const of = (layer: number, group: number | null) => ({
    ...{ layer, group, attention: one, scores: one, selected: Uint8Array.of(1) },
  });
  const [stage] = resolveConfig({ recipe: "sparse" }).stages;
  const titles = (layers: LayerMaps[]) =>
    mapSection({ step: 1, stage, seqLen: 1, topk: 1, text: "a", layers })
      .blocks.flatMap((block) => block.kind === "figure" ? [[block.id, block.title]] : []);
  assert.deepEqual(titles([of(0, null)]), [["maps-0", "Layer 0"]]);
  assert.deepEqual(titles([of(1, 0), of(1, 1)]), [
    ["maps-1-0", "Layer 1, group 0 of its heads"],
    ["maps-1-1", "Layer 1, group 1 of its heads"],
  ]);
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

  await t.step("the table of metrics knows all that was logged", () => {
    const names = new Set(
      readMetrics(join(folder, "metrics.jsonl")).flatMap((row) => Object.keys(row)),
    );
    for (const name of ["index/0/captured_mass", "latent/0/variance/0", "swap/oracle"]) {
      assert(names.has(name), name);
    }
    const unknown = [...names].filter((name) => metricInfo(name) === null);
    assert.deepEqual(unknown, ["step", "t"]);
  });

  await t.step("of the command, with maps", async () => {
    await Deno.remove(report);
    const { code, stdout, stderr } = await run(REPORT, ["runs/tiny"], cwd);
    assert.equal(code, 0, stderr);
    assert.equal(stdout.trim(), "runs/tiny/report.html");
    await checkFigures(report, { training, indexer, maps: ["maps-0", "maps-1"], costs }, "dark");
  });

  await t.step("with the density of its latents, where that was measured", async () => {
    const probe = { entropy: 4, bits: 1.25, control: -0.125 };
    const layer = {
      ...{ spectralRank: 5, effectiveRank: 4, reconstructionError: 0.5, functionalRank: null },
      ...{ projected: [], quantised: [{ bits: "fp8", distortion: 0.0625 }] },
      probes: [0, 4].map((distance) => ({ distance, ...probe })),
      heads: { own: 0.75, shared: 0.5 },
    };
    saveDensity(folder, {
      ...{ step: 12, data: NASTY, kvLoraRank: 16, topk: 8, tokens: 32, layers: [layer, layer] },
      probed: { rows: 64, classes: 20, other: 0.25 },
    });
    const { code, stderr } = await run(REPORT, ["runs/tiny", "--without-maps"], cwd);
    assert.equal(code, 0, stderr);
    await checkFigures(report, {
      ...{ training, indexer, costs },
      latents: ["rank", "reconstruction", "spectrum", "probes"],
    });
    const html = await Deno.readTextFile(report);
    for (const text of ["head tax", "0.2500", "1.250 of 4.000", "one of them for the rarest"]) {
      assert(html.includes(text), text);
    }
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
      [["runs/gpt2"], /runs\/gpt2\/config\.json: it is no configuration of latentk.*model_type/],
      [["runs/damaged"], /runs\/damaged\/config\.json: config\.json is damaged/],
      [["runs/bench"], /runs\/bench\/results\.json: it is not the results of an ablation/],
      [["runs/list"], /runs\/list\/results\.json: results\.json is damaged/],
      [["runs/half"], /runs\/half\/results\.json: it is not the results of an ablation/],
    ];
    const foreign: [folder: string, file: string, text: string][] = [
      ["gpt2", "config.json", '{ "model_type": "gpt2" }'],
      ["damaged", "config.json", "{"],
      ["bench", "results.json", '{ "results": [1] }'],
      ["list", "results.json", "[]"],
      [
        "half",
        "results.json",
        '{ "experiment": "x", "size": "real", "question": "?", "runs": [1] }',
      ],
    ];
    for (const [name, file, text] of foreign) {
      await Deno.mkdir(join(cwd, "runs", name));
      await Deno.writeTextFile(join(cwd, "runs", name, file), text);
    }
    for (const [args, message] of wrong) {
      const { code, stderr } = await run(REPORT, args, cwd);
      assert.equal(code, 2, stderr);
      assert.match(stderr, message);
      assert.equal(stderr.trim().split("\n").length, 1);
    }
    for (const [name, file] of foreign) {
      const left = [...Deno.readDirSync(join(cwd, "runs", name))].map(({ name }) => name);
      assert.deepEqual(left, [file]);
    }
  });
  await Deno.remove(cwd, { recursive: true });
});
