/**
 * Tables in a terminal.
 *
 * @module
 */

/**
 * Cells in columns, two spaces apart.
 *
 * @param isLeft columns that stand to the left; default: the first
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { textTable } from "./text_table.ts";
 *
 * assert.equal(textTable([["name", "n"], ["a", "10"]]), "name   n\na     10");
 * ```
 */
export function textTable(
  rows: readonly (readonly string[])[],
  isLeft: (column: number) => boolean = (column) => column === 0,
): string {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  const cell = (text: string, i: number) =>
    isLeft(i) ? text.padEnd(widths[i]) : text.padStart(widths[i]);
  return rows.map((row) => row.map(cell).join("  ").trimEnd()).join("\n");
}
