/**
 * `deno task report <run or ablation folder> [key=value …]`
 *
 * @module
 */
import { join } from "node:path";
import { exitCodes, oneWord, requireKeys, runCommand, splitArguments } from "./command.ts";
import { parseOverrides } from "../config/config.ts";
import { UserError } from "../errors.ts";
import { isThere } from "../files/files.ts";
import { writeAblationReport } from "../report/ablation/ablation_report.ts";
import { saveFigure } from "../report/page/save_figure.ts";
import { readRun } from "../report/run/run_data.ts";
import { writeRunReport } from "../report/run/run_report.ts";
import { sampleMaps } from "../report/run/sample_maps.ts";
import { REPORT_FILE } from "../report/page/write.ts";

const HELP = `usage: deno task report <run or ablation folder> [key=value ...] [--without-maps]

  deno task report runs/quickstart_001
  deno task report runs/compression_sparsity
  deno task report runs/compression_sparsity figure=grid out=grid.svg

Writes report.html into the folder, one file that opens from disk, and prints its path. For a run
with an indexer it also computes attention and selection maps of a sample from the latest
checkpoint, unless --without-maps. With figure= it instead saves one figure of the report that is
there (made first if there is none) as an image; this needs Chromium.

  device=auto    auto | webgpu | cpu, for the maps
  figure=none    id of a figure, as in the report's address bar: report.html#loss
  out=none       .png or .svg; none: <figure>.png in the folder
  theme=light    light | dark, of the image
  width=900      of the image`;

const keys = ["device", "figure", "out", "theme", "width"];

async function main(args: string[]): Promise<number> {
  const { flags, pairs, words } = splitArguments(args, ["--without-maps"]);
  if (flags.has("--help")) {
    console.log(HELP);
    return exitCodes.done;
  }
  const typed = parseKeys(pairs);
  const wanted = { verb: "report on", what: "one run or ablation folder", help: HELP };
  const folder = oneWord(words, wanted);
  const write = () =>
    writeFor(folder, { device: typed.device, maps: !flags.has("--without-maps") });
  if (typed.figure === undefined) {
    console.log(await write());
    return exitCodes.done;
  }
  const report = join(folder, REPORT_FILE);
  if (!isThere(report)) await write();
  const { figure, out = join(folder, `${figure}.png`), theme = "light", width = "900" } = typed;
  await saveFigure(report, { figure, out, theme, width });
  console.log(out);
  return exitCodes.done;
}

function parseKeys(pairs: readonly string[]): Record<string, string> {
  requireKeys("report", pairs, keys);
  return Object.fromEntries(pairs.map((pair) => {
    const at = pair.indexOf("=");
    return [pair.slice(0, at), pair.slice(at + 1)];
  }));
}

async function writeFor(
  folder: string,
  { device, maps }: { device: string | undefined; maps: boolean },
): Promise<string> {
  if (isThere(join(folder, "results.json"))) return await writeAblationReport(folder);
  if (!isThere(join(folder, "config.json"))) {
    throw new UserError(
      `Cannot report on ${folder}: it holds neither config.json of a run nor results.json of an ` +
        "ablation",
    );
  }
  if (!maps) return await writeRunReport(folder);
  const options = {
    ...(device === undefined ? {} : parseOverrides([`device=${device}`])),
    note: (line: string) => console.error(line),
  };
  return await writeRunReport(folder, {
    maps: await sampleMaps(folder, readRun(folder).config, options).catch((error) => {
      // A run that has saved nothing yet still has curves to show.
      if (!(error instanceof UserError)) throw error;
      console.error(`without maps: ${error.message}`);
      return null;
    }),
  });
}

if (import.meta.main) await runCommand(main);
