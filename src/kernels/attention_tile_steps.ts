/**
 * Inner steps of the attention kernels for GPUs, as lines of WGSL.
 *
 * @module
 */
import type { HeadTensor } from "./attention_access.ts";
import type { Shares } from "./attention_tile_plan.ts";

/** 0, 1, … n - 1. */
export const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** What {@linkcode loadSide} reads: `columns` vec4 columns from `from` on of `rows` tokens. */
export interface Load {
  readonly tensor: HeadTensor;
  /** Name of the workgroup array. */
  readonly side: string;
  readonly rows: number;
  readonly from: number;
  readonly columns: number;
  /** WGSL of the first token and of the head. */
  readonly start: string;
  readonly head: string;
}

/** Reads a part of a tensor into workgroup memory; tokens past the end are zeros. */
export function loadSide(
  { tensor, side, rows, from, columns, start, head }: Load,
  threads: number,
): string[] {
  const count = rows * columns;
  const lines: string[] = [];
  for (let done = 0; done < count; done += threads) {
    const load = `let i = lane + ${done}u;
let r = i / ${columns}u;
let c = i % ${columns}u;
var value = vec4f();
if (${start} + r < u.seq_len) { value = load_${tensor}(batch_row + ${start} + r, ${head}, c + ${from}u); }
${side}[r][c] = value;`;
    lines.push(
      done + threads > count ? `if (lane < ${count - done}u) {\n${load}\n}` : `{\n${load}\n}`,
    );
  }
  return lines;
}

/** `body(0) … body(count - 1)`: written out, or in a loop of at most `limit` steps a round. */
export function unrolled(
  count: number,
  limit: number,
  body: (index: string) => string[],
): string[] {
  if (count <= limit) return range(count).flatMap((i) => ["{", ...body(`${i}u`), "}"]);
  const whole = count - count % limit;
  return [
    `for (var base = 0u; base < ${whole}u; base += ${limit}u) {`,
    ...range(limit).flatMap((i) => ["{", ...body(i === 0 ? "base" : `(base + ${i}u)`), "}"]),
    "}",
    ...range(count - whole).flatMap((i) => ["{", ...body(`${whole + i}u`), "}"]),
  ];
}

/** Adds one vec4 column of the row side times the column side to the scores `name`. */
export function productStep(
  name: string,
  rows: number,
  side: string,
  c: string,
  from: number,
): string[] {
  return [
    ...range(rows).map((i) => `let a${i} = row_side[row${i}][${c}];`),
    ...range(4).map((j) => `let b${j} = ${side}[col${j}][${c} + ${from}u];`),
    ...range(rows).flatMap((i) =>
      range(4).map((j) => {
        const sum = ["x", "y", "z", "w"].reduce(
          (acc, e) => `fma(a${i}.${e}, b${j}.${e}, ${acc})`,
          `${name}${i}_${j}`,
        );
        return `${name}${i}_${j} = ${sum};`;
      })
    ),
  ];
}

/** Adds four weighted rows of the column side to a result. */
export function sumStep(
  s: Shares,
  weights: string,
  from: number,
  side: string,
  lanesX: number,
  g: string,
): string[] {
  return [
    ...range(s.rows).map((i) => `let w${i} = ${weights}[${s.into}_row${i}][${g} + ${from}u];`),
    ...range(4).flatMap((j) =>
      range(s.cols).map((c) =>
        `let b${j}_${c} = ${side}[${g} + ${j * lanesX}u][${s.into}_col${c}];`
      )
    ),
    ...range(s.rows).flatMap((i) =>
      range(s.cols).map((c) => {
        const sum = ["x", "y", "z", "w"].reduce(
          (acc, e, j) => `fma(vec4f(w${i}.${e}), b${j}_${c}, ${acc})`,
          `${s.into}_${i}_${c}`,
        );
        return `${s.into}_${i}_${c} = ${sum};`;
      })
    ),
  ];
}
