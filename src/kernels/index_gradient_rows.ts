/**
 * Gradients of the lightning indexer in registers: an invocation keeps a few queries (or keys) of
 * one head, and the keys (or queries) stream past. For software adapters, and for heads too wide
 * for workgroup memory.
 *
 * @module
 */
import { range } from "./attention_tile_steps.ts";
import type { GradientCode, IndexGradientSpec } from "./index_gradient.ts";
import { at } from "./units.ts";

/** Invocations per workgroup: one SIMD register of f32 on common CPUs. */
const LANES = 8;

/**
 * Queries or keys per invocation, by the largest head width: more are faster, until the compiler
 * needs seconds for the code.
 */
const ROWS: readonly { readonly width: number; readonly rows: number }[] = [
  { width: 16, rows: 4 },
  { width: 64, rows: 2 },
  { width: Infinity, rows: 1 },
];

/** Code of a pass. */
export function gradientRows(
  pass: "q" | "k",
  { dim, activation }: IndexGradientSpec,
): GradientCode {
  const count = ROWS.find(({ width }) => dim <= width)!.rows;
  const rows = range(count);
  const columns = range(Math.ceil(dim / 4));
  const span = LANES * count;
  const byQuery = pass === "q";
  const [own, other] = byQuery ? ["q", "k"] : ["k", "q"];
  // All heads share the key.
  const [ownHead, otherHead] = byQuery ? ["head", "0u"] : ["0u", "head"];
  const [ownRow, otherRow] = byQuery ? ["q_row", "k_row"] : ["k_row", "q_row"];
  const limit = byQuery ? "u.queries" : "u.keys";
  const lines: string[] = [`let first = tile * ${span}u;`];
  for (const i of rows) {
    // Rows past the end repeat the last one, and are not stored.
    lines.push(
      `let t${i} = first + lane + ${LANES * i}u;`,
      `let r${i} = min(t${i}, ${limit} - 1u);`,
      ...columns.map((c) =>
        `let own${i}_${c} = load_${own}(${ownRow} + r${i}, ${ownHead}, ${c}u);`
      ),
      ...columns.map((c) => `var sum${i}_${c} = vec4f();`),
    );
    if (byQuery) {
      lines.push(`let w${i} = ${at("w", `(q_row + r${i})`, "head")};`, `var dw${i} = 0.0;`);
    }
  }
  lines.push(
    ...(byQuery
      ? [
        `let end = min(u.keys, u.first_row + min(first + ${span}u, u.queries));`,
        "for (var c = 0u; c < end; c++) {",
      ]
      : [
        "let begin = select(0u, first - u.first_row, first > u.first_row);",
        "for (var c = begin; c < u.queries; c++) {",
      ]),
    ...columns.map((c) => `let other_${c} = load_${other}(${otherRow} + c, ${otherHead}, ${c}u);`),
    ...(byQuery ? [] : [`let w = ${at("w", "(q_row + c)", "head")};`]),
  );
  for (const i of rows) {
    const seen = byQuery ? `c <= u.first_row + r${i}` : `r${i} <= u.first_row + c`;
    const g = byQuery
      ? at("grad_scores", `(q_row + r${i})`, "c")
      : at("grad_scores", "(q_row + c)", `r${i}`);
    const weight = byQuery ? `w${i}` : "w";
    const product = columns.map((c) => `dot(own${i}_${c}, other_${c})`).join(" + ");
    const passes = activation === "relu" ? `select(0.0, ${weight}, a${i} > 0.0)` : weight;
    lines.push(
      `let a${i} = ${product};`,
      `let g${i} = select(0.0, ${g}, ${seen});`,
      `let d${i} = g${i} * ${passes};`,
      ...(byQuery
        ? [`dw${i} += g${i} * ${activation === "relu" ? `max(a${i}, 0.0)` : `a${i}`};`]
        : []),
      ...columns.map((c) => `sum${i}_${c} += d${i} * other_${c};`),
    );
  }
  lines.push("}");
  for (const i of rows) {
    lines.push(
      `if (t${i} < ${limit}) {`,
      ...columns.map((c) =>
        `store_grad_${own}(${ownRow} + r${i}, head, ${c}u, sum${i}_${c} * u.scale);`
      ),
      ...(byQuery ? [`${at("grad_w", `(q_row + r${i})`, "head")} = dw${i} * u.scale;`] : []),
      "}",
    );
  }
  return { declarations: "", body: lines.join("\n"), workgroup: LANES, tileRows: span };
}
