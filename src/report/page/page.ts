/**
 * A report as one HTML file that needs nothing else.
 *
 * @module
 */
import { clientScript } from "./client.ts";
import type { Block, Figure, Report, Table, Text } from "./figure.ts";
import { palettes } from "./palette.ts";
import { styleSheet } from "./style.ts";

/**
 * The page of a report.
 *
 * @param plotly source text of `plotly.min.js`, see `loadPlotly`
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { renderPage } from "./page.ts";
 *
 * const report = { title: "a < b", lead: "", facts: [], headlines: [], sections: [] };
 * assert.match(renderPage(report, ""), /<h1>a &lt; b<\/h1>/);
 * ```
 */
export function renderPage(report: Report, plotly: string): string {
  const { title, lead, facts, headlines } = report;
  const sections = report.sections.filter(({ blocks }) => blocks.length);
  const figures = figuresOf(report).map(({ id, title, data, layout, height }) => ({
    ...{ id, title, data, layout, height },
  }));
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${styleSheet()}</style>
</head>
<body>
<main>
<header>
<h1>${escapeHtml(title)}</h1>
<button id="theme" type="button" title="Light or dark">Dark</button>
${lead ? `<p class="lead">${escapeHtml(lead)}</p>` : ""}
<p class="facts">${facts.map((fact) => `<span>${escapeHtml(fact)}</span>`).join("")}</p>
<nav>${sections.map(({ id, title }) => `<a href="#${id}">${escapeHtml(title)}</a>`).join("")}</nav>
</header>
<div class="headlines">${
    headlines.map(({ label, value }) =>
      `<div><b>${escapeHtml(value)}</b><span>${escapeHtml(label)}</span></div>`
    ).join("")
  }</div>
${
    sections.map(({ id, title, blocks }) =>
      `<section id="${id}">\n<h2>${escapeHtml(title)}</h2>\n<div class="blocks">\n` +
      `${blocks.map(renderBlock).join("\n")}\n</div>\n</section>`
    ).join("\n")
  }
</main>
<script>${plotly.replace(/<\/script/gi, "<\\/script")}</script>
<script type="application/json" id="palettes">${toJson(palettes)}</script>
<script type="application/json" id="figures">${toJson(figures)}</script>
<script>${clientScript}</script>
</body>
</html>
`;
}

/** All figures of a report, in their order. */
export function figuresOf({ sections }: Report): Figure[] {
  return sections.flatMap(({ blocks }) => blocks.filter((block) => block.kind === "figure"));
}

/** Text that cannot be taken for markup. */
export function escapeHtml(text: string): string {
  return text.replace(
    /[&<>"]/g,
    (char) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[char]!,
  );
}

function renderBlock(block: Block): string {
  switch (block.kind) {
    case "figure":
      return renderFigure(block);
    case "table":
      return renderTable(block);
    default:
      return renderText(block);
  }
}

function renderFigure({ id, title, caption, height = 340, half }: Figure): string {
  return `<figure id="${id}"${half ? ' class="half"' : ""}><figcaption><h3>${
    escapeHtml(title)
  }</h3><p>${escapeHtml(caption)}</p></figcaption>` +
    `<div class="plot" id="plot-${id}" style="min-height:${height}px"></div></figure>`;
}

function renderTable({ caption, header, rows, isText }: Table): string {
  const row = (cells: readonly string[], tag: string) =>
    `<tr>${cells.map((cell) => `<${tag}>${escapeHtml(cell)}</${tag}>`).join("")}</tr>`;
  return `<div class="table"><p>${escapeHtml(caption)}</p><div class="scroll"><table${
    isText ? ' class="text"' : ""
  }><thead>${row(header, "th")}</thead><tbody>${
    rows.map((cells) => row(cells, "td")).join("")
  }</tbody></table></div></div>`;
}

function renderText({ kind, text, summary }: Text): string {
  const body = kind === "text" ? `<p>${escapeHtml(text)}</p>` : `<pre>${escapeHtml(text)}</pre>`;
  return summary === undefined
    ? body
    : `<details><summary>${escapeHtml(summary)}</summary>${body}</details>`;
}

/** JSON that can stand in a script element. */
function toJson(value: unknown): string {
  return JSON.stringify(value).replaceAll("<", "\\u003c");
}
