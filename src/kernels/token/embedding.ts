/**
 * Rows of a table by number, and the gradient of the table.
 *
 * @module
 */
import { spread } from "../wgsl/elementwise.ts";
import { bytesOf, foldGrid, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at, widthOf } from "../wgsl/layout_units.ts";
import { MOST_ITERATIONS, rounds } from "../wgsl/loops.ts";
import { type Layout, layoutUniforms, read, unitType, write } from "../wgsl/operand.ts";
import { type Sink, sinkMatrices, sinkParts } from "../wgsl/sink.ts";

/**
 * y[n] = table[ids[n] − firstRow] for the rows n whose id the table part holds; others are left
 * alone. ids [rows, 1] i32, table [part of vocabulary, cols], y [rows, cols].
 */
export function embeddingKernel(
  { ids, table, y, firstRow }: { ids: Layout; table: Layout; y: Layout; firstRow: number },
): Kernel {
  const width = widthOf(table, y);
  const operands = { ids: read(ids, "i32"), table: read(table, width), y: write(y, width) };
  const over = spread(y.rows, y.cols / width);
  return makeKernel({
    name: "embedding",
    shape: `${table.rows}x${table.cols} ${y.rows}`,
    operands,
    uniforms: {
      ...over.uniforms,
      ...layoutUniforms({ table: operands.table, y: operands.y, ids: operands.ids }),
      first_row: firstRow,
      table_rows: table.rows,
    },
    workgroup: over.workgroup,
    grid: over.grid,
    body: `${over.prelude}
  let id = u32(${at("ids", "row", "0u")}) - u.first_row;
  if (id < u.table_rows) { ${at("y", "row", "col")} = ${at("table", "id", "col")}; }`,
    bytes: bytesOf(ids, y, y),
  });
}

/** Tokens looked at together: 256 words of 32 bits for each row of the table. */
const TILE = 8192;
/** Largest number of table rows that a workgroup serves. */
const BLOCK = 8;
/** Runs of tokens in a tile, 1024 each, that are summed side by side. */
const RUNS = 8;

/** Adds dy of the tokens in `bits`. */
const ONE_BY_ONE = `while (bits != 0u) {
              sum += ${at("dy", "(token + firstTrailingBit(bits))", "col")};
              bits &= bits - 1u;
            }`;

/** The same with four loads under way at a time. */
const FOUR_AT_ONCE = `while (bits != 0u) {
              let n0 = token + firstTrailingBit(bits);
              bits &= bits - 1u;
              let more1 = bits != 0u;
              let n1 = select(n0, token + firstTrailingBit(bits), more1);
              bits &= bits - 1u;
              let more2 = bits != 0u;
              let n2 = select(n0, token + firstTrailingBit(bits), more2);
              bits &= bits - 1u;
              let more3 = bits != 0u;
              let n3 = select(n0, token + firstTrailingBit(bits), more3);
              bits &= bits - 1u;
              let d0 = ${at("dy", "n0", "col")};
              let d1 = ${at("dy", "n1", "col")};
              let d2 = ${at("dy", "n2", "col")};
              let d3 = ${at("dy", "n3", "col")};
              sum += d0;
              if (more1) { sum += d1; }
              if (more2) { sum += d2; }
              if (more3) { sum += d3; }
            }`;

/** How a gradient is spread: rows of the table that a workgroup serves, and runs side by side. */
function gradientShape(table: Layout, software: boolean): { block: number; deep: number } {
  // Barriers are dear without a GPU: there one run of invocations does all.
  return software
    ? { block: BLOCK, deep: 1 }
    : { block: Math.max(1, Math.min(BLOCK, Math.ceil(table.rows / 1024))), deep: RUNS };
}

/** Most iterations of an invocation over so many tokens, of which all may be of one row. */
function gradientIterations(
  tokens: number,
  table: Layout,
  { width, software }: { width: number; software: boolean },
): number {
  const { block, deep } = gradientShape(table, software);
  const threads = 32 * deep;
  const ofTile = (count: number) => {
    const marks = rounds(block * TILE / 32, threads) + rounds(BLOCK * RUNS, threads) +
      rounds(count, threads);
    const runs = rounds(RUNS, deep);
    // Of the block's rows, each token is in one, and so is a word for each of them at most.
    const hits = Math.min(count, runs * TILE / RUNS);
    const words = Math.min(hits, block * runs * TILE / RUNS / 32);
    const sums = words + (software ? hits : Math.ceil(hits / 4) + words);
    return 1 + marks + block + rounds(table.cols / width, 32) * (block * (1 + runs) + sums);
  };
  const rest = tokens % TILE;
  return Math.floor(tokens / TILE) * ofTile(TILE) + (rest ? ofTile(rest) : 0);
}

/**
 * Most tokens of one {@linkcode embeddingGradient}: with more, its loops would be too long. Whole
 * tiles of tokens, if it can be, so that sums are the same however many there are.
 */
export function embeddingGradientTokens(dy: Layout, dTable: Sink, software: boolean): number {
  const width = widthOf(dy, ...sinkMatrices(dTable));
  const isShort = (tokens: number) =>
    gradientIterations(tokens, dTable.into, { width, software }) <= MOST_ITERATIONS;
  let tokens = TILE;
  while (tokens > 32 && !isShort(tokens)) tokens /= 2;
  if (tokens < TILE) return tokens;
  while (tokens < dy.rows && isShort(tokens + TILE)) tokens += TILE;
  return tokens;
}

/**
 * dTable[v] = Σ dy[n] over the tokens n with ids[n] = firstRow + v; zero where there is none.
 *
 * No sorting and no float atomics: a workgroup owns up to 8 rows of the table, marks the tokens
 * that hit them in bit masks, and walks the masks in ascending order with 8 runs of tokens side by
 * side. Sums have a fixed order. At most {@linkcode embeddingGradientTokens} tokens.
 */
export function embeddingGradient(
  { ids, dy, dTable, firstRow, software }: {
    ids: Layout;
    dy: Layout;
    dTable: Sink;
    firstRow: number;
    software: boolean;
  },
): Kernel {
  const table = dTable.into;
  const width = widthOf(dy, ...sinkMatrices(dTable));
  const type = unitType(width);
  const { block, deep } = gradientShape(table, software);
  const workgroup = 32 * deep;
  const out = sinkParts("out", dTable, width);
  const operands = { ids: read(ids, "i32"), dy: read(dy, width), ...out.operands };
  const parts = Array.from({ length: deep }, (_, i) => `parts[lid.x + ${32 * i}u]`);
  const more = sinkParts("out", { into: table, add: table }, width);
  return makeKernel({
    name: "embedding_gradient",
    shape: `${table.rows}x${table.cols} ${dy.rows}`,
    operands,
    uniforms: {
      tokens: dy.rows,
      rows: table.rows,
      cols: table.cols / width,
      first_row: firstRow,
      block,
      ...layoutUniforms(operands),
    },
    workgroup: [32, deep],
    grid: foldGrid(Math.ceil(table.rows / block)),
    iterations: gradientIterations(dy.rows, table, { width, software }),
    declarations: `
var<workgroup> masks: array<atomic<u32>, ${BLOCK * TILE / 32}>;
// Bit w of word j: whether word 32 j + w of the row's mask is not zero.
var<workgroup> marked: array<atomic<u32>, ${BLOCK * RUNS}>;
${deep === 1 ? "" : `var<workgroup> parts: array<${type}, ${workgroup}>;`}`,
    body: `
  let v0 = (wid.x + wid.y * groups.x) * u.block;
  let v1 = min(v0 + u.block, u.rows);
  for (var first = 0u; first < u.tokens; first += ${TILE}u) {
    for (var i = lane; i < u.block * ${
      TILE / 32
    }u; i += ${workgroup}u) { atomicStore(&masks[i], 0u); }
    for (var i = lane; i < ${BLOCK * RUNS}u; i += ${workgroup}u) { atomicStore(&marked[i], 0u); }
    workgroupBarrier();
    let count = min(u.tokens - first, ${TILE}u);
    for (var i = lane; i < count; i += ${workgroup}u) {
      let k = u32(${at("ids", "(first + i)", "0u")}) - u.first_row - v0;
      if (k < u.block) {
        atomicOr(&masks[k * 256u + (i >> 5u)], 1u << (i & 31u));
        atomicOr(&marked[k * 8u + (i >> 10u)], 1u << ((i >> 5u) & 31u));
      }
    }
    workgroupBarrier();
    for (var v = v0; v < v1; v++) {
      for (var c = 0u; c < u.cols; c += 32u) {
        let col = c + lid.x;
        let k = v - v0;
        var sum = ${type}(0.0);
        for (var run = lid.y; run < ${RUNS}u; run += ${deep}u) {
          var words = select(0u, atomicLoad(&marked[k * ${RUNS}u + run]), col < u.cols);
          while (words != 0u) {
            let word = run * 32u + firstTrailingBit(words);
            words &= words - 1u;
            let token = first + word * 32u;
            var bits = atomicLoad(&masks[k * ${TILE / 32}u + word]);
            ${software ? ONE_BY_ONE : FOUR_AT_ONCE}
          }
        }
        ${deep === 1 ? "" : "parts[lane] = sum;\n        workgroupBarrier();"}
        if (lid.y == 0u && col < u.cols) {
          let total = ${deep === 1 ? "sum" : parts.join(" + ")};
          if (first == 0u) { ${out.store("v", "col", "total")} } else { ${
      more.store("v", "col", "total")
    } }
        }
        ${deep === 1 ? "" : "workgroupBarrier();"}
      }
    }
    ${deep === 1 ? "workgroupBarrier();" : ""}
  }`,
    flops: dy.rows * dy.cols,
  });
}
