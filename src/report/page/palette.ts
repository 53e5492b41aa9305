/**
 * Colours of reports, light and dark. Figures name them as `@0` … `@7` (categories, in fixed
 * order), `@r0.25` (a place on the ramp of ordered values), `@sequential` and `@diverging` (colour
 * scales), `@on-sequential-0.25` (a text on a place of one of these), `@ink`, `@soft`, `@grid`, `@band`, `@surface`; the page fills them in.
 *
 * @module
 */

/** One of the two looks of a page. */
export interface Palette {
  readonly page: string;
  readonly surface: string;
  readonly ink: string;
  readonly soft: string;
  readonly grid: string;
  /** Marks every other stage. */
  readonly band: string;
  /** Of categories. */
  readonly colors: readonly string[];
  /** Ends of the ramp of ordered values, all of it readable on the surface. */
  readonly ramp: readonly [string, string];
  /** From little, near the surface, to much. */
  readonly sequential: readonly string[];
  /** Negative, none, positive. */
  readonly diverging: readonly string[];
}

const blues = ["#cde2fb", "#9ec5f4", "#6da7ec", "#3987e5", "#256abf", "#184f95", "#0d366b"];

/** The looks by name. */
export const palettes: Readonly<Record<"light" | "dark", Palette>> = {
  light: {
    page: "#f9f9f7",
    surface: "#fcfcfb",
    ink: "#0b0b0b",
    soft: "#52514e",
    grid: "#e1e0d9",
    band: "rgba(120,118,110,0.09)",
    colors: [
      "#2a78d6",
      "#eb6834",
      "#1baf7a",
      "#4a3aa7",
      "#e34948",
      "#b87a00",
      "#e87ba4",
      "#008300",
    ],
    ramp: ["#86b6ef", "#0d366b"],
    sequential: ["#f2f6fb", ...blues],
    diverging: ["#184f95", "#6da7ec", "#f0efec", "#f0908f", "#b32c2b"],
  },
  dark: {
    page: "#0d0d0d",
    surface: "#1a1a19",
    ink: "#ffffff",
    soft: "#c3c2b7",
    grid: "#2c2c2a",
    band: "rgba(200,198,190,0.08)",
    colors: [
      "#3987e5",
      "#d95926",
      "#199e70",
      "#9085e9",
      "#e66767",
      "#c98500",
      "#d55181",
      "#4fa84f",
    ],
    ramp: ["#cde2fb", "#2f74cf"],
    sequential: ["#20242a", ...blues.toReversed()],
    diverging: ["#6da7ec", "#256abf", "#383835", "#b34a49", "#f0908f"],
  },
};
