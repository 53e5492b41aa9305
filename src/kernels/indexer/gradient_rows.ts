/**
 * Gradients of the lightning indexer in registers: an invocation keeps a few queries (or keys) of
 * one head, and the keys (or queries) stream past. For software adapters, and for heads too wide
 * for workgroup memory. Where all invocations of a workgroup are one subgroup, each loads its part
 * of what streams past and hands it round.
 *
 * @module
 */
import type { GradientCode, IndexGradientSpec } from "./gradient_code.ts";
import { activated, passed } from "./indexer.ts";
import { range } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { rounds } from "../wgsl/loops.ts";
import { subgroupLanes } from "../product/subgroup.ts";

/**
 * Queries or keys per invocation, by the largest head width: more are faster, until the compiler
 * needs seconds for the code.
 */
const ROWS: readonly { readonly width: number; readonly rows: number }[] = [
  { width: 16, rows: 4 },
  { width: 64, rows: 2 },
  { width: Infinity, rows: 1 },
];

/** Code of a pass: `"q"` keeps queries, `"k"` keys. */
export function gradientRows(
  pass: "q" | "k",
  { indexer, capabilities }: IndexGradientSpec,
): GradientCode {
  const { dim } = indexer;
  const subgroup = capabilities.software ? subgroupLanes(capabilities.subgroups) : null;
  const lanes = subgroup ?? 32;
  const rows = range(ROWS.find(({ width }) => dim <= width)!.rows);
  const columns = range(Math.ceil(dim / 4));
  const span = lanes * rows.length;
  const byQuery = pass === "q";
  const own = pass;
  // All heads share the key.
  const load = (tensor: "q" | "k", token: string, c: string) =>
    `load_${tensor}(${tensor}_row + ${token}, ${tensor === "q" ? "head" : "0u"}, ${c})`;
  const limit = byQuery ? "u.queries" : "u.keys";
  const lines: string[] = [`let first = tile * ${span}u;`];
  for (const i of rows) {
    // Rows past the end repeat the last one, and are not stored.
    lines.push(
      `let t${i} = first + lane + ${lanes * i}u;`,
      `let r${i} = min(t${i}, ${limit} - 1u);`,
      ...columns.map((c) => `let own${i}_${c} = ${load(own, `r${i}`, `${c}u`)};`),
      ...columns.map((c) => `var sum${i}_${c} = vec4f();`),
    );
    if (byQuery) {
      lines.push(`let w${i} = ${at("w", `(q_row + r${i})`, "head")};`, `var dw${i} = 0.0;`);
    }
  }
  const steps = range(subgroup ? Math.max(1, Math.floor(subgroup / columns.length)) : 1);
  lines.push(
    ...(byQuery
      ? [
        "let begin = 0u;",
        `let end = min(u.keys, u.first_row + min(first + ${span}u, u.queries));`,
      ]
      : [
        "let begin = select(0u, first - u.first_row, first > u.first_row);",
        "let end = u.queries;",
      ]),
    `for (var c = begin; c < end; c += ${steps.length}u) {`,
    ...streamed(
      steps.length,
      columns.length,
      subgroup,
      (token, c) => load(byQuery ? "k" : "q", `min(${token}, end - 1u)`, c),
    ),
  );
  for (const e of steps) {
    const other = `(c + ${e}u)`;
    if (!byQuery) {
      lines.push(`let w_${e} = ${at("w", `(q_row + min(${other}, end - 1u))`, "head")};`);
    }
    for (const i of rows) {
      const id = `${i}_${e}`;
      const seen = byQuery
        ? `${other} <= u.first_row + r${i}`
        : `${other} < end && r${i} <= u.first_row + ${other}`;
      const g = byQuery
        ? at("grad_scores", `(q_row + r${i})`, other)
        : at("grad_scores", `(q_row + ${other})`, `r${i}`);
      const weight = byQuery ? `w${i}` : `w_${e}`;
      const product = columns.map((c) => `dot(own${i}_${c}, other${e}_${c})`).join(" + ");
      lines.push(
        `let a${id} = ${product};`,
        `let g${id} = select(0.0, ${g}, ${seen});`,
        `let d${id} = g${id} * ${passed(indexer, `a${id}`, weight)};`,
        ...(byQuery ? [`dw${i} += g${id} * ${activated(indexer, `a${id}`)};`] : []),
        ...columns.map((c) => `sum${i}_${c} += d${id} * other${e}_${c};`),
      );
    }
  }
  lines.push("}");
  for (const i of rows) {
    const row = `${own}_row + r${i}`;
    lines.push(
      `if (t${i} < ${limit}) {`,
      ...columns.map((c) => `store_grad_${own}(${row}, head, ${c}u, sum${i}_${c} * u.scale);`),
      ...(byQuery ? [`${at("grad_w", `(${row})`, "head")} = dw${i} * u.scale;`] : []),
      "}",
    );
  }
  return {
    declarations: "",
    body: lines.join("\n"),
    workgroup: lanes,
    tileRows: span,
    flopsPerPair: 4 * dim,
    iterations: (streamed) => rounds(streamed, steps.length),
  };
}

/** `other<e>_<c>`: column c of the token at position `c + e`, for `steps` tokens. */
function streamed(
  steps: number,
  columns: number,
  subgroup: number | null,
  load: (token: string, column: string) => string,
): string[] {
  const items = range(steps * columns);
  const name = (n: number) => `other${Math.floor(n / columns)}_${n % columns}`;
  if (subgroup === null) return items.map((n) => `let ${name(n)} = ${load("c", `${n}u`)};`);
  const loads = range(Math.ceil(items.length / subgroup)).map((m) => {
    const item = `(lane + ${subgroup * m}u)`;
    return `let part${m} = ${load(`(c + ${item} / ${columns}u)`, `${item} % ${columns}u`)};`;
  });
  return [
    ...loads,
    ...items.map((n) =>
      `let ${name(n)} = subgroupBroadcast(part${Math.floor(n / subgroup)}, ${n % subgroup}u);`
    ),
  ];
}
