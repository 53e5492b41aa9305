/**
 * How the attention kernels read a selection of keys, as lines of WGSL: the bits of a mask, the
 * tiles of it that are empty, and the lists that the gathered kernels follow.
 *
 * @module
 */
import type { Pass } from "./pass.ts";
import { SEGMENTS } from "../select/lists.ts";

/** `lse` of a query that sees no key: large enough for all its weights to be 0. */
export const EMPTY_LSE = "1e30";

/** Queries or keys of a tile. Both `length` and `stride` are powers of two. */
export interface Axis {
  /** WGSL of the first token, a multiple of `length`. */
  readonly origin: string;
  readonly length: number;
}

/** Keys of a tile as an invocation has them: key k is at `origin + lane + k * stride`. */
export interface LaneKeys extends Axis {
  /** WGSL of a number below `stride`. */
  readonly lane: string;
  readonly stride: number;
}

/** The mask's bits for some queries and keys of an invocation. */
export interface Bits {
  /** Lines that read the words. */
  readonly load: string[];
  /** WGSL: is key `k` selected for query `q`? */
  selected(q: number, k: number): string;
}

/** Reads the mask for the queries in the given rows of the matrix (WGSL) and `count` keys. */
export function maskBits(rows: readonly string[], keys: LaneKeys, count: number): Bits {
  const { origin, length, lane, stride } = keys;
  // A tile of fewer than 32 keys lies within one word.
  const wordOf = (k: number) => length < 32 ? 0 : Math.floor(k * stride / 32);
  const load = [`let key_bit = ${length < 32 ? `${origin} % 32u + ` : ""}${lane};`];
  rows.forEach((row, q) => {
    load.push(`let mask_at${q} = u.mask_offset + ${row} * u.mask_stride + ${origin} / 32u;`);
    for (let w = 0; w <= wordOf(count - 1); w++) {
      load.push(`let word${q}_${w} = mask[mask_at${q} + ${w}u] >> key_bit;`);
    }
  });
  return {
    load,
    selected(q, k) {
      const w = wordOf(k);
      return `((word${q}_${w} >> ${k * stride - 32 * w}u) & 1u) != 0u`;
    },
  };
}

/** `body` if some query of a tile has some key of it, tested on blocks of 32 queries. */
export function ifAnySelected(queries: Axis, keys: Axis, body: readonly string[]): string[] {
  const words: string[] = [];
  // Blocks past the end repeat the last one.
  const part = ({ origin }: Axis, i: number) => `min(${origin} / 32u + ${i}u, last_block)`;
  for (let q = 0; q < queries.length; q += 32) {
    for (let k = 0; k < keys.length; k += 32) {
      const row = `(block_row + ${part(queries, q / 32)})`;
      const at = `u.blocks_offset + ${row} * u.blocks_stride + ${part(keys, k / 32)}`;
      words.push(`blocks[${at}]`);
    }
  }
  const some = keys.length < 32
    ? `((${words.join(" | ")}) >> (${keys.origin} % 32u)) & ${2 ** keys.length - 1}u`
    : words.join(" | ");
  return [
    "let last_block = (u.seq_len - 1u) / 32u;",
    "let block_row = batch_row / u.seq_len * (last_block + 1u);",
    `if ((${some}) != 0u) {`,
    ...body,
    "}",
  ];
}

/** The list of columns of one row. */
export interface List {
  /** Lines that declare `list`, the list's start in `buffer`, and its range `begin`, `stop`. */
  readonly load: string[];
  /** The tokens; -1 ends a list early. */
  readonly buffer: "indices" | "queries";
}

/** Finds the list of the query or key `token` of the sequence, in row `row` of the matrices. */
export function listOf(pass: Pass, token: string, row: string): List {
  if (!pass.keyMajor) {
    return {
      buffer: "indices",
      load: [
        `let list = u.indices_offset + ${row} * u.indices_stride;`,
        "let begin = 0u;",
        `let stop = min(u.topk, ${token} + 1u);`,
      ],
    };
  }
  return {
    buffer: "queries",
    load: [
      "let starts_at = u.starts_offset + batch_row / u.seq_len * u.starts_stride + " +
      `min(${token}, u.seq_len - 1u) * ${SEGMENTS}u;`,
      "let list = u.queries_offset + batch_row * u.queries_stride;",
      "let begin = starts[starts_at];",
      `let stop = starts[starts_at + ${SEGMENTS}u];`,
    ],
  };
}
