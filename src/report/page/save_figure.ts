/**
 * Figures of a report as image files.
 *
 * @module
 */
import { UserError } from "../../errors.ts";
import { writingLater } from "../../files/files.ts";
import { suggest } from "../../text/suggest.ts";
import { Page } from "./browser.ts";

/** PNGs have so many pixels for each of the layout's. */
const SCALE = 2;

/**
 * Saves a figure of a report.
 *
 * @param options as typed: `figure` is its id, `out` ends in .png or .svg
 * @throws {UserError} if there is no such figure, or no Chromium
 */
export async function saveFigure(
  report: string,
  options: { figure: string; out: string; theme: string; width: string },
): Promise<void> {
  const { figure, out, theme, width } = options;
  const [, format] = out.match(/\.(png|svg)$/) ?? [];
  if (!format) throw new UserError(`Cannot save ${out}: its name must end in .png or .svg`);
  if (theme !== "light" && theme !== "dark") {
    throw new UserError(`Cannot set theme=${theme}: expected light | dark`);
  }
  if (!/^\d{2,4}$/.test(width)) {
    throw new UserError(`Cannot set width=${width}: expected 10 to 9999 pixels`);
  }
  await using page = await Page.open(report, { theme });
  const ids = await page.evaluate(
    `JSON.parse(document.getElementById("figures").textContent).map(({ id }) => id)`,
  ) as string[];
  if (!ids.includes(figure)) {
    const near = suggest(figure, ids);
    throw new UserError(
      `Cannot find figure=${figure} in ${report}: ` +
        (near ? `did you mean ${near}?` : `it has ${ids.join(", ")}`),
    );
  }
  const asked = JSON.stringify({ format, width: Number(width), scale: SCALE, theme });
  const url = await page.evaluate(`figureImage(${JSON.stringify(figure)}, ${asked})`) as string;
  const content = url.slice(url.indexOf(",") + 1);
  const bytes = format === "svg"
    ? new TextEncoder().encode(decodeURIComponent(content))
    : Uint8Array.fromBase64(content);
  await writingLater(out, () => Deno.writeFile(out, bytes));
}
