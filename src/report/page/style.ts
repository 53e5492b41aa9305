/**
 * The look of reports.
 *
 * @module
 */
import { type Palette, palettes } from "./palette.ts";

function variables({ page, surface, ink, soft, grid }: Palette): string {
  return `--page:${page};--surface:${surface};--ink:${ink};--soft:${soft};--grid:${grid};`;
}

/** The style sheet: light, or dark where the reader's system or the button asks for it. */
export function styleSheet(): string {
  const [light, dark] = [variables(palettes.light), variables(palettes.dark)];
  return `
:root { color-scheme: light; ${light} }
@media (prefers-color-scheme: dark) { :root { color-scheme: dark; ${dark} } }
:root[data-theme=light] { color-scheme: light; ${light} }
:root[data-theme=dark] { color-scheme: dark; ${dark} }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
header { position: relative; padding-right: 6rem; }
h1 { margin: 0 0 .25rem; font-size: 1.7rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.75rem 0 .75rem; padding-bottom: .3rem; border-bottom: 1px solid var(--grid);
  font-size: 1.25rem; }
h3 { margin: 0; font-size: 1rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: inherit; }
.lead { font-size: 1.05rem; }
.facts, nav, figcaption p, .table > p { color: var(--soft); font-size: .875rem; }
.facts span:not(:last-child)::after, nav a:not(:last-child)::after { content: "\\00a0 · "; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
#theme { position: absolute; top: 0; right: 0; padding: .3rem .75rem; border-radius: 6px;
  border: 1px solid var(--grid); background: var(--surface); color: var(--ink); font: inherit;
  font-size: .875rem; cursor: pointer; }
.headlines { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.25rem 0; }
.headlines div { flex: 1 1 140px; max-width: 20rem; overflow-wrap: anywhere; padding: .6rem .8rem; border: 1px solid var(--grid); border-radius: 8px;
  background: var(--surface); }
.headlines b { display: block; font-size: 1.25rem; font-weight: 600; line-height: 1.3; }
.headlines span { display: block; color: var(--soft); font-size: .8125rem; line-height: 1.4; }
.blocks { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1.25rem 1rem; }
.blocks > * { grid-column: 1 / -1; margin: 0; min-width: 0; }
.blocks > .half { grid-column: auto; }
figure { padding: .9rem .9rem .4rem; border: 1px solid var(--grid); border-radius: 8px;
  background: var(--surface); break-inside: avoid; }
figcaption p { margin: .15rem 0 .4rem; max-width: none; line-height: 1.4; }
.plot { width: 100%; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--grid); text-align: right;
  vertical-align: top; white-space: nowrap; }
th { min-width: 4.5rem; color: var(--soft); font-weight: 600; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
table.text th, table.text td { text-align: left; white-space: normal; }
pre { margin: 0; padding: .8rem; border: 1px solid var(--grid); border-radius: 8px;
  background: var(--surface); font: .8125rem/1.45 ui-monospace, "DejaVu Sans Mono", monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--soft); font-size: .875rem; margin-bottom: .4rem; }
@media (max-width: 720px) { .blocks > .half { grid-column: 1 / -1; } }
@media print {
  main { max-width: none; padding: 0; }
  #theme, nav { display: none; }
  h2 { break-after: avoid; }
}
`;
}
