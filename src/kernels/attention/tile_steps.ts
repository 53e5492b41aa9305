/**
 * Inner steps of the attention kernels for GPUs, as lines of WGSL.
 *
 * @module
 */
import { columnRuns, type HeadDims, type HeadTensor } from "./heads.ts";
import type { Shares } from "./plan.ts";
import { range } from "../wgsl/kernel.ts";

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
  readonly dims: HeadDims;
  /** Whether heads are read as whole `vec4`s. */
  readonly aligned: boolean;
}

/**
 * Reads a part of a tensor into workgroup memory; tokens past the end are zeros. All reads come before
 * the first write, which would wait for them.
 */
export function loadSide(
  { tensor, side, rows, from, columns, start, head, dims, aligned }: Load,
  threads: number,
): string[] {
  const fetch: string[] = [];
  const put: string[] = [];
  for (const run of columnRuns(tensor, dims, aligned, from, columns)) {
    const count = rows * run.columns;
    for (let done = 0; done < count; done += threads) {
      const value = `value_${run.from}_${done}`;
      const row = `(lane + ${done}u) / ${run.columns}u`;
      const column = `(lane + ${done}u) % ${run.columns}u`;
      const read = `${run.load}(batch_row + ${start} + ${row}, ${head}, ${column} + ${
        run.from - run.origin
      }u)`;
      const guard = done + threads > count ? `lane < ${count - done}u` : "";
      const inside = [guard, `${start} + ${row} < u.seq_len`].filter(Boolean).join(" && ");
      const write = `${side}[${row}][${column} + ${run.from - from}u] = ${value};`;
      fetch.push(`var ${value} = vec4f();`, `if (${inside}) { ${value} = ${read}; }`);
      put.push(guard ? `if (${guard}) { ${write} }` : write);
    }
  }
  return ["{", ...fetch, ...put, "}"];
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

/** Rounds of the loop of {@linkcode unrolled}. */
export function unrolledRounds(count: number, limit: number): number {
  return count <= limit ? 0 : Math.floor(count / limit);
}

/** Adds one vec4 column of the row side times the column side to the scores `name`. */
export function productStep(
  name: string,
  { rows, cols }: { readonly rows: number; readonly cols: number },
  side: string,
  c: string,
  from: number,
): string[] {
  return [
    ...range(rows).map((i) => `let a${i} = row_side[row${i}][${c}];`),
    ...range(cols).map((j) => `let b${j} = ${side}[col${j}][${c} + ${from}u];`),
    ...range(rows).flatMap((i) =>
      range(cols).map((j) => {
        const sum = ["x", "y", "z", "w"].reduce(
          (acc, e) => `fma(a${i}.${e}, b${j}.${e}, ${acc})`,
          `${name}${i}_${j}`,
        );
        return `${name}${i}_${j} = ${sum};`;
      })
    ),
  ];
}

/** Where {@linkcode sumStep} finds weights and the columns that they belong to. */
export interface Weighted {
  /** Workgroup array of the weights, and the `vec4` column of the first. */
  readonly weights: string;
  readonly from: number;
  /** Workgroup array of the column side, and the row of the first column. */
  readonly side: string;
  readonly first: number;
  /** Columns between those of one `vec4` of weights. */
  readonly lanesX: number;
}

/** Adds four weighted rows of the column side to a result. */
export function sumStep(
  s: Shares,
  { weights, from, side, first, lanesX }: Weighted,
  g: string,
): string[] {
  return [
    ...range(s.rows).map((i) => `let w${i} = ${weights}[${s.into}_row${i}][${g} + ${from}u];`),
    ...range(4).flatMap((j) =>
      range(s.cols).map((c) =>
        `let b${j}_${c} = ${side}[${g} + ${first + j * lanesX}u][${s.into}_col${c}];`
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
