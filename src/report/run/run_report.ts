/**
 * The report of a run.
 *
 * @module
 */
import { join } from "node:path";
import {
  type ConfigKey,
  configKeys,
  fields,
  resolveConfig,
  type RunConfig,
} from "../../config/config.ts";
import { countParameters } from "../../costs/costs.ts";
import { describeIdentity } from "../../data/identity.ts";
import { experimentNames, loadExperiment } from "../../config/experiment.ts";
import { withUnit } from "../../text/units.ts";
import { costSection } from "./cost_section.ts";
import { type Block, type Headline, percent, type Report, signed } from "../page/figure.ts";
import { indexerSection } from "./indexer_figures.ts";
import { latentSection } from "./latent_figures.ts";
import { mapSection } from "./map_figures.ts";
import { lastRow, readRun, type ReportedRun } from "./run_data.ts";
import type { SampleMaps } from "./sample_maps.ts";
import { trainingSection } from "./training_figures.ts";
import { AFTER_A_RUN, REPORT_FILE, writeReport } from "../page/write.ts";

/** Samples of text that are shown, the last. */
const MOST_SAMPLES = 3;

/**
 * Writes `report.html` into a run folder.
 *
 * @param options `maps`: those of `sampleMaps`, to be shown too; `seconds`: see `loadPlotly`
 * @returns its path
 * @throws {UserError} if the folder is not a run's, or Plotly cannot be loaded
 */
export async function writeRunReport(
  folder: string,
  { maps = null, seconds }: { maps?: SampleMaps | null; seconds?: number } = {},
): Promise<string> {
  const path = join(folder, REPORT_FILE);
  await writeReport(path, await runReport(readRun(folder), maps), seconds);
  return path;
}

/**
 * What training does at its end: writes the report, or says how to get one.
 *
 * @returns a line for the console
 */
export async function writeReportAfterTraining(folder: string): Promise<string> {
  try {
    return `report: ${await writeRunReport(folder, { seconds: AFTER_A_RUN })}`;
  } catch (error) {
    // What the run came to stays as it is, whatever is wrong with its report.
    const reason = error instanceof Error ? error.message : String(error);
    return `no report yet (${reason}); "deno task report ${folder}" makes it`;
  }
}

/** The content of a run's report. */
export async function runReport(run: ReportedRun, maps: SampleMaps | null): Promise<Report> {
  return {
    title: run.name,
    lead: await questionOf(run),
    facts: facts(run),
    headlines: headlines(run),
    sections: [
      trainingSection(run),
      indexerSection(run),
      latentSection(run),
      mapSection(maps),
      costSection(run),
      samplesSection(run),
      parametersSection(run),
    ],
  };
}

/** The question of the experiment that the run is named after; none: an empty string. */
async function questionOf({ name }: ReportedRun): Promise<string> {
  const experiment = name.replace(/_\d{3,}$/, "");
  return experimentNames().includes(experiment) ? (await loadExperiment(experiment)).question : "";
}

function facts({ config, spans, summary, environment: env, data }: ReportedRun): string[] {
  const { status = "running", step = 0, seconds, error } = summary ?? {};
  const steps = spans[spans.length - 1].end;
  const sha = env.git?.sha;
  return [
    `${status} at step ${step} of ${steps}${error ? `: ${error}` : ""}`,
    ...(seconds ? [`${duration(seconds)} of training`] : []),
    `${config.attention}, ${spans.map(({ stage }) => `${stage.name} ${stage.steps}`).join(" → ")}`,
    `data ${config.data}${data ? `: ${describeIdentity(data)}` : ""}`,
    ...(env.adapter ? [env.adapter] : []),
    ...(env.started ? [env.started.slice(0, 16).replace("T", " ")] : []),
    ...(sha ? [`commit ${sha.slice(0, 7)}${env.git!.dirty ? " with changes" : ""}`] : []),
  ];
}

function headlines({ config, rows }: ReportedRun): Headline[] {
  const last = (metric: string) => lastRow(rows, metric)?.[metric];
  const shown = (
    label: string,
    metric: string,
    format: (value: number) => string,
  ): Headline[] => {
    const value = last(metric);
    return value == null ? [] : [{ label, value: format(value) }];
  };
  const [learned, dense] = [last("swap/learned"), last("swap/dense")];
  return [
    ...shown("validation loss, nats", "val/loss", (loss) => loss.toFixed(4)),
    ...shown("bits a byte", "val/bpb", (bits) => bits.toFixed(3)),
    ...shown("right answers", "val/accuracy", percent),
    ...shown("attention captured", "index/captured_mass", percent),
    ...(learned == null || dense == null
      ? []
      : [{ label: "selected against all keys, nats", value: signed(learned - dense) }]),
    { label: "parameters", value: withUnit(countParameters(config).total) },
    ...shown("tokens a second", "time/tokens_per_s", withUnit),
  ];
}

function samplesSection({ samples }: ReportedRun) {
  const parts = samples.split(/^--- step (\d+) ---$/m).slice(1);
  const blocks: Block[] = [];
  for (let i = Math.max(0, parts.length - 2 * MOST_SAMPLES); i < parts.length; i += 2) {
    const isLast = i === parts.length - 2;
    blocks.push({
      kind: "verbatim",
      text: parts[i + 1].trim(),
      ...(isLast ? {} : { summary: `Step ${parts[i]}` }),
    });
  }
  return { id: "samples", title: "Samples", blocks: blocks.reverse() };
}

function parametersSection({ config }: ReportedRun) {
  const defaults = resolveConfig({ preset: config.preset, attention: config.attention });
  const changed = configKeys.filter((key) =>
    key !== "name" && key !== "resume" && text(config[key]) !== text(defaults[key])
  );
  const row = (
    key: ConfigKey,
  ) => [key, text(config[key]), text(defaults[key]), fields[key].describe];
  const blocks: Block[] = [
    {
      kind: "table",
      isText: true,
      caption: `What differs from preset ${config.preset}.`,
      header: ["Key", "Value", "Preset", "Meaning"],
      rows: changed.map(row),
    },
    {
      kind: "table",
      isText: true,
      caption: "The stages.",
      header: ["Key", ...config.stages.map(({ name }) => name)],
      rows: Object.keys(config.stages[0])
        .filter((key) => key !== "name")
        .map((
          key,
        ) => [key, ...config.stages.map((stage) => text(stage[key as keyof typeof stage]))]),
    },
    { kind: "verbatim", text: allKeys(config), summary: "All keys" },
  ];
  return { id: "parameters", title: "Parameters", blocks };
}

function allKeys(config: RunConfig): string {
  return configKeys.map((key) => `${key}=${text(config[key])}`).join("\n");
}

function text(value: unknown): string {
  return value === null || value === undefined ? "none" : String(value);
}

function duration(seconds: number): string {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
