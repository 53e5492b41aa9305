/**
 * Attention for GPUs: a workgroup computes a tile of scores in registers from rows and columns in
 * workgroup memory, hands its weights on through workgroup memory, and accumulates the results in
 * registers.
 *
 * Loops of WGSL are few and coarse, and indices into workgroup memory are constants wherever they
 * can be, since the compiler adds a 64-bit counter to every loop and a clamp to every index.
 *
 * @module
 */
import {
  type AttentionSpec,
  headColumns,
  type HeadTensor,
  type Pass,
  type PassCode,
  visible,
} from "./attention_access.ts";

/** Tile of a pass. It has `lanesY * rows` rows and `4 * lanesX` columns. */
export interface Tile {
  /** Invocations along the columns; each has four of them. */
  readonly lanesX: number;
  /** Invocations along the rows. */
  readonly lanesY: number;
  /** Rows per invocation. */
  readonly rows: number;
  /** Most `vec4` columns of the row side that are in workgroup memory at a time. */
  readonly chunk: number;
  /** Most steps of an inner loop that are written out. */
  readonly unroll: number;
}

const range = (n: number) => Array.from({ length: n }, (_, i) => i);
const odd = (n: number) => n % 2 === 0 ? n + 1 : n;

/** Sizes that follow from a tile and the widths of the heads. */
export interface TilePlan {
  readonly threads: number;
  readonly tileRows: number;
  readonly tileCols: number;
  /** `vec4`s from row to row of the row side; odd, so that rows lie in different banks. */
  readonly pitch: number;
  /** Whether the row side is read once and stays. If not, the weights take over its memory. */
  readonly resident: boolean;
  /** Workgroup memory. */
  readonly bytes: number;
}

/** Works out sizes and workgroup memory of a tile. */
export function planTile(pass: Pass, { dims }: AttentionSpec, tile: Tile): TilePlan {
  const threads = tile.lanesX * tile.lanesY;
  const tileRows = tile.lanesY * tile.rows;
  const tileCols = 4 * tile.lanesX;
  const widest = Math.max(...pass.rows.map((t) => headColumns(t, dims)));
  const resident = pass.rows.length === 1 && tile.chunk >= widest;
  const weights = pass.sums.length * tile.lanesX;
  const pitch = odd(Math.max(Math.min(tile.chunk, widest), resident ? 0 : weights));
  const stats = pass.name === "attention" ? tileRows * (tile.lanesX + 1) * 4 : 0;
  const columns = pass.cols.reduce((sum, t) => sum + odd(headColumns(t, dims)), 0);
  const bytes = 16 * (tileRows * (pitch + (resident ? odd(weights) : 0)) + tileCols * columns) +
    stats;
  return { threads, tileRows, tileCols, pitch, resident, bytes };
}

/** How the invocations share out an accumulated result. */
interface Shares {
  readonly into: string;
  readonly lanesX: number;
  readonly lanesY: number;
  readonly rows: number;
  readonly cols: number;
}

/** Shares with the least work and traffic for `columns` vec4 columns. */
function shareOut(into: string, columns: number, tileRows: number, threads: number): Shares {
  let best: Shares | null = null;
  let least = Infinity;
  for (let lanesX = 1; lanesX <= threads; lanesX *= 2) {
    const lanesY = threads / lanesX;
    if (!Number.isInteger(lanesY) || tileRows % lanesY !== 0) continue;
    const rows = tileRows / lanesY;
    const cols = Math.ceil(columns / lanesX);
    // Per four columns of scores: multiplications, and loads of four times their cost.
    const cost = 16 * rows * cols + 4 * (rows + 4 * cols);
    if (cost < least) [best, least] = [{ into, lanesX, lanesY, rows, cols }, cost];
  }
  if (!best) throw new RangeError(`Cannot share ${tileRows} rows among ${threads} invocations`);
  return best;
}

/** Code of a pass for `passKernel`. */
export function tileCode(pass: Pass, spec: AttentionSpec, tile: Tile): PassCode {
  const { dims } = spec;
  const plan = planTile(pass, spec, tile);
  const { threads, tileRows, tileCols } = plan;
  const forward = pass.name === "attention";
  const group = dims.heads / dims.kvHeads;
  const shares = pass.sums.map((s) =>
    shareOut(s.into, headColumns(s.into, dims), tileRows, threads)
  );
  const lines: string[] = [];
  const add = (...more: string[]) => lines.push(...more);

  const declarations = [
    `var<workgroup> row_side: array<array<vec4f, ${plan.pitch}>, ${tileRows}>;`,
  ];
  for (const t of pass.cols) {
    declarations.push(
      `var<workgroup> ${t}_side: array<array<vec4f, ${odd(headColumns(t, dims))}>, ${tileCols}>;`,
    );
  }
  const weights = plan.resident ? "weights" : "row_side";
  if (plan.resident) {
    const width = odd(pass.sums.length * tile.lanesX);
    declarations.push(`var<workgroup> weights: array<array<vec4f, ${width}>, ${tileRows}>;`);
  }
  if (forward) {
    declarations.push(
      `var<workgroup> partial: array<array<f32, ${tile.lanesX}>, ${tileRows}>;`,
      `var<workgroup> factor: array<f32, ${tileRows}>;`,
    );
  }

  add(`let first = tile * ${tileRows}u;`, `let end = min(first + ${tileRows}u, u.seq_len);`);
  add(`let x = lane % ${tile.lanesX}u;`, `let y = lane / ${tile.lanesX}u;`);
  for (const s of shares) {
    add(`let ${s.into}_x = lane % ${s.lanesX}u;`, `let ${s.into}_y = lane / ${s.lanesX}u;`);
    for (const i of range(s.rows)) {
      for (const c of range(s.cols)) add(`var ${s.into}_${i}_${c} = vec4f();`);
    }
  }
  for (const i of range(tile.rows)) {
    add(`let row${i} = y + ${i * tile.lanesY}u;`, `let t${i} = first + row${i};`);
    if (forward) add(`var m${i} = -1e30;`, `var l${i} = 0.0;`);
    else if (!pass.keyMajor) {
      const row = `(batch_row + min(t${i}, u.seq_len - 1u))`;
      add(
        `let lse${i} = lse[u.lse_offset + ${row} * u.lse_stride + head] * ${Math.LOG2E};`,
        `let delta${i} = delta[u.delta_offset + ${row} * u.delta_stride + head];`,
      );
    }
  }
  for (const j of range(4)) add(`let col${j} = x + ${j * tile.lanesX}u;`);
  if (plan.resident) {
    add(
      ...loadSide(
        pass.rows[0],
        "row_side",
        tileRows,
        0,
        headColumns(pass.rows[0], dims),
        "first",
        "head",
        threads,
      ),
    );
  }

  // Columns that some row of the tile may see.
  if (pass.keyMajor) {
    add(`for (var q_head = head * ${group}u; q_head < (head + 1u) * ${group}u; q_head++) {`);
    add(
      `for (var start = first / ${tileCols}u * ${tileCols}u; start < u.seq_len; start += ${tileCols}u) {`,
    );
  } else {
    add(`let kv_head = head / ${group}u;`);
    add(`for (var start = 0u; start < end; start += ${tileCols}u) {`);
  }
  const colHead = pass.keyMajor ? "q_head" : "kv_head";
  add("workgroupBarrier();");
  for (const t of pass.cols) {
    add(...loadSide(t, `${t}_side`, tileCols, 0, headColumns(t, dims), "start", colHead, threads));
  }
  pass.rows.forEach((tensor, n) => {
    const name = n === 0 ? "s" : "dp";
    for (const i of range(tile.rows)) for (const j of range(4)) add(`var ${name}${i}_${j} = 0.0;`);
    const columns = headColumns(tensor, dims);
    for (let from = 0; from < columns; from += tile.chunk) {
      const size = Math.min(tile.chunk, columns - from);
      if (n > 0 || from > 0) add("workgroupBarrier();");
      if (!plan.resident) {
        add(...loadSide(tensor, "row_side", tileRows, from, size, "first", "head", threads));
      }
      add("workgroupBarrier();");
      add(
        ...unrolled(
          size,
          tile.unroll,
          (c) => productStep(name, tile.rows, `${pass.cols[n]}_side`, c, from),
        ),
      );
    }
  });

  if (pass.keyMajor) {
    for (const j of range(4)) {
      const row = `(batch_row + min(start + col${j}, u.seq_len - 1u))`;
      const lse = `lse[u.lse_offset + ${row} * u.lse_stride + q_head] * ${Math.LOG2E}`;
      add(
        // Queries past the end see nothing.
        `let lse${j} = select(3e38, ${lse}, start + col${j} < u.seq_len);`,
        `let delta${j} = delta[u.delta_offset + ${row} * u.delta_stride + q_head];`,
      );
    }
  }
  add(...maskLines(pass, tile, plan));
  if (forward) {
    for (const i of range(tile.rows)) {
      add(`partial[row${i}][x] = max(max(s${i}_0, s${i}_1), max(s${i}_2, s${i}_3));`);
    }
    add("workgroupBarrier();");
    for (const i of range(tile.rows)) {
      const top = range(tile.lanesX).reduce((m, x) => `max(${m}, partial[row${i}][${x}])`, `m${i}`);
      add(
        `let top${i} = ${top};`,
        `let alpha${i} = exp2((m${i} - top${i}) * u.scale_log2);`,
        `m${i} = top${i};`,
        `let shift${i} = top${i} * u.scale_log2;`,
      );
      const p = range(4).map((j) => `exp2(fma(s${i}_${j}, u.scale_log2, -shift${i}))`);
      add(`let p${i} = vec4f(${p.join(", ")});`);
      add(`l${i} = fma(l${i}, alpha${i}, (p${i}.x + p${i}.y) + (p${i}.z + p${i}.w));`);
      add(`${weights}[row${i}][x] = p${i};`);
      add(`if (x == 0u) { factor[row${i}] = alpha${i}; }`);
    }
  } else {
    add("workgroupBarrier();");
    for (const i of range(tile.rows)) {
      const stat = (j: number) => pass.keyMajor ? j : i;
      const p = range(4).map((j) => `exp2(fma(s${i}_${j}, u.scale_log2, -lse${stat(j)}))`);
      const dp = range(4).map((j) => `(dp${i}_${j} - delta${stat(j)}) * u.scale`);
      add(`let p${i} = vec4f(${p.join(", ")});`, `let ds${i} = p${i} * vec4f(${dp.join(", ")});`);
      pass.sums.forEach(({ weight }, n) => {
        add(`${weights}[row${i}][${n === 0 ? "x" : `x + ${n * tile.lanesX}u`}] = ${weight}${i};`);
      });
    }
  }
  add("workgroupBarrier();");
  pass.sums.forEach(({ of, into }, n) => {
    const s = shares[n];
    for (const i of range(s.rows)) {
      add(`let ${into}_row${i} = ${into}_y + ${i * s.lanesY}u;`);
      if (forward) {
        add(`let beta${i} = factor[${into}_row${i}];`);
        for (const c of range(s.cols)) add(`o_${i}_${c} *= beta${i};`);
      }
    }
    for (const c of range(s.cols)) {
      // Lanes without a column repeat the last one, and don't store it.
      add(
        `let ${into}_col${c} = min(${into}_x + ${c * s.lanesX}u, ${headColumns(into, dims) - 1}u);`,
      );
    }
    const side = `${pass.cols[of]}_side`;
    add(
      ...unrolled(
        tile.lanesX,
        tile.unroll,
        (g) => sumStep(s, weights, n * tile.lanesX, side, tile.lanesX, g),
      ),
    );
  });
  add("}");
  if (pass.keyMajor) add("}");

  if (forward) {
    for (const i of range(tile.rows)) add(`partial[row${i}][x] = l${i};`);
    add("workgroupBarrier();");
    add("if (x == 0u) {");
    for (const i of range(tile.rows)) {
      const sum = range(tile.lanesX).map((x) => `partial[row${i}][${x}]`).join(" + ");
      add(
        `let sum${i} = ${sum};`,
        `factor[row${i}] = 1.0 / sum${i};`,
        `if (t${i} < u.seq_len) {`,
        `lse[u.lse_offset + (batch_row + t${i}) * u.lse_stride + head] = (m${i} * u.scale_log2 + log2(sum${i})) * ${Math.LN2};`,
        "}",
      );
    }
    add("}", "workgroupBarrier();");
  }
  for (const s of shares) {
    for (const i of range(s.rows)) {
      add(`let ${s.into}_out${i} = ${s.into}_y + ${i * s.lanesY}u;`);
      add(`if (first + ${s.into}_out${i} < u.seq_len) {`);
      const factor = forward ? ` * factor[o_out${i}]` : "";
      for (const c of range(s.cols)) {
        const column = `${s.into}_x + ${c * s.lanesX}u`;
        const guard = (c + 1) * s.lanesX > headColumns(s.into, dims);
        const store =
          `store_${s.into}(batch_row + first + ${s.into}_out${i}, head, ${column}, ${s.into}_${i}_${c}${factor});`;
        add(guard ? `if (${column} < ${headColumns(s.into, dims)}u) { ${store} }` : store);
      }
      add("}");
    }
  }
  return {
    declarations: declarations.join("\n"),
    body: lines.join("\n"),
    workgroup: threads,
    tileRows,
  };
}

/** Reads `columns` vec4 columns from `from` on of `rows` tokens from `start` on; zeros past the end. */
function loadSide(
  tensor: HeadTensor,
  side: string,
  rows: number,
  from: number,
  columns: number,
  start: string,
  head: string,
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
function unrolled(count: number, limit: number, body: (index: string) => string[]): string[] {
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
function productStep(name: string, rows: number, side: string, c: string, from: number): string[] {
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
function sumStep(
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

/** Hides pairs: only tiles on the diagonal have any. */
function maskLines(pass: Pass, tile: Tile, plan: TilePlan): string[] {
  const crosses = pass.keyMajor
    ? `start < first + ${plan.tileRows - 1}u`
    : `start + ${plan.tileCols - 1}u > first`;
  const lines = [`if (${crosses}) {`];
  for (const i of range(tile.rows)) {
    for (const j of range(4)) {
      const column = `(start + col${j})`;
      const seen = pass.keyMajor ? visible(column, `t${i}`) : visible(`t${i}`, column);
      lines.push(`s${i}_${j} = select(-3e38, s${i}_${j}, ${seen});`);
    }
  }
  lines.push("}");
  return lines;
}
