/**
 * The lightning indexer and the attention that teaches it, as values: what their tensors do not
 * tell, from the model down to the kernels.
 *
 * @module
 */
import type { HeadDims } from "../attention/heads.ts";

/** A lightning indexer (DeepSeek-V3.2, arXiv:2512.02556, eq. 1). All its heads share one key. */
export interface Indexer {
  /** Heads, each with a query and a weight of its own. */
  readonly heads: number;
  /** Width of a head, and of the key. */
  readonly dim: number;
  /** Of the products of queries and keys. */
  readonly activation: "relu" | "none";
  /** Factor of the scores, usually (heads · dim)^-0.5. */
  readonly scale: number;
}

/** An attention layer that an indexer is to imitate. */
export interface Teacher {
  /** Its heads. */
  readonly dims: HeadDims;
  /** Factor of its scores, usually (nope + rope)^-0.5. */
  readonly scale: number;
}

/** The indexer's heads, as the functions for those of attention take them. */
export function indexDims({ heads, dim }: Indexer): HeadDims {
  return { heads, kvHeads: 1, nope: dim, rope: 0, value: dim, packed: false };
}

/** WGSL of the activation of `product`. */
export function activated({ activation }: Indexer, product: string): string {
  return activation === "relu" ? `max(${product}, 0.0)` : product;
}

/** WGSL of `gradient` behind the activation, before it: where `product` lets it through. */
export function passed({ activation }: Indexer, product: string, gradient: string): string {
  return activation === "relu" ? `select(0.0, ${gradient}, ${product} > 0.0)` : gradient;
}

/** Pairs of a query of rows `firstRow … firstRow + rows` and a key that it may see. */
export function pairsOfChunk(firstRow: number, rows: number): number {
  return rows * firstRow + rows * (rows + 1) / 2;
}
