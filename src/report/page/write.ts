/**
 * From a report to a file.
 *
 * @module
 */
import { UserError } from "../../errors.ts";
import { writeAside } from "../../runs/run_folder.ts";
import type { Report } from "./figure.ts";
import { renderPage } from "./page.ts";

/** Name of the file in a run's or an ablation's folder. */
export const REPORT_FILE = "report.html";

/**
 * The source of Plotly, which every report carries.
 *
 * @throws {UserError} if the package is neither cached nor to be had
 */
export async function loadPlotly(): Promise<string> {
  try {
    // By a name that Deno does not see in advance: training must not ask for an npm package.
    return (await import(new URL("./plotly_source.ts", import.meta.url).href)).default;
  } catch (error) {
    const reason = (error instanceof Error ? error.message : String(error)).split("\n")[0];
    throw new UserError(
      `Cannot load plotly.js-dist-min for a report: ${reason}; run "deno install" with a network`,
    );
  }
}

/** Writes a report, all of it or nothing. */
export async function writeReport(path: string, report: Report): Promise<void> {
  writeAside(path, renderPage(report, await loadPlotly()));
}
