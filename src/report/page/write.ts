/**
 * From a report to a file.
 *
 * @module
 */
import { UserError } from "../../errors.ts";
import { within } from "../../files/patience.ts";
import { writeAside } from "../../runs/run_folder.ts";
import type { Report } from "./figure.ts";
import { renderPage } from "./page.ts";

/** Name of the file in a run's or an ablation's folder. */
export const REPORT_FILE = "report.html";

/** Seconds that a run which is over waits for a package: a report can be made later, too. */
export const AFTER_A_RUN = 5;

/** Seconds that a command waits whose purpose is the report. */
const FOR_A_REPORT = 60;

/**
 * The source of Plotly, which every report carries.
 *
 * @param seconds time to wait for it where it has to be fetched
 * @throws {UserError} if the package is neither cached nor to be had
 */
export async function loadPlotly(seconds: number = FOR_A_REPORT): Promise<string> {
  // By a name that Deno does not see in advance: training must not ask for an npm package.
  const source = new URL("./plotly_source.ts", import.meta.url).href;
  try {
    return await within(seconds, async () => (await import(source)).default as string);
  } catch (error) {
    const reason = (error instanceof Error ? error.message : String(error)).split("\n")[0];
    throw new UserError(
      `Cannot load plotly.js-dist-min for a report: ${reason}; run "deno install" with a network`,
    );
  }
}

/** Writes a report, all of it or nothing; see {@linkcode loadPlotly}. */
export async function writeReport(path: string, report: Report, seconds?: number): Promise<void> {
  writeAside(path, renderPage(report, await loadPlotly(seconds)));
}
