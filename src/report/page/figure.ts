/**
 * What a report consists of, as data.
 *
 * @module
 */
import { decimals, withUnit } from "../../text/units.ts";

/** A trace of a plot, in Plotly's words; colours as in `palette.ts`. */
export type Trace = Record<string, unknown>;

/** A plot with what it shows in one sentence. */
export interface Figure {
  readonly kind: "figure";
  /** Unique on the page; `deno task report <folder> figure=<id>` saves it as an image. */
  readonly id: string;
  readonly title: string;
  /** What it shows and how to read it. */
  readonly caption: string;
  readonly data: readonly Trace[];
  /** Plotly's layout, without a title. */
  readonly layout: Record<string, unknown>;
  /** Pixels; default 340. */
  readonly height?: number;
  /** Whether two of this kind stand side by side. */
  readonly half?: boolean;
}

/** A table; the first column is to the left, the others to the right. */
export interface Table {
  readonly kind: "table";
  readonly caption: string;
  readonly header: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** Whether cells are words, all of them to the left. */
  readonly isText?: boolean;
}

/** A paragraph, or a text as it stands. */
export interface Text {
  readonly kind: "text" | "verbatim";
  readonly text: string;
  /** Of a text that is folded away until it is asked for. */
  readonly summary?: string;
}

/** A part of a {@linkcode Section}. */
export type Block = Figure | Table | Text;

/** A part of a report with its heading. */
export interface Section {
  readonly id: string;
  readonly title: string;
  readonly blocks: readonly Block[];
}

/** A number that stands at the top. */
export interface Headline {
  readonly label: string;
  readonly value: string;
}

/** A whole report. */
export interface Report {
  readonly title: string;
  /** A line under the title, such as the question. */
  readonly lead: string;
  /** Short facts: status, device, date. */
  readonly facts: readonly string[];
  readonly headlines: readonly Headline[];
  /** Those without blocks are left out. */
  readonly sections: readonly Section[];
}

/** Bytes with their unit: `61.4 kB`. */
export function bytes(count: number): string {
  const text = withUnit(count);
  return /\d$/.test(text) ? `${text} B` : `${text}B`;
}

/** A share as `12.3 %`. */
export function percent(share: number): string {
  return Number.isFinite(share) ? `${(100 * share).toFixed(1)} %` : "–";
}

/** A number with its sign: `+0.013`. */
export function signed(value: number, digits = 4): string {
  return `${value < 0 ? "−" : "+"}${decimals(Math.abs(value), digits)}`;
}
