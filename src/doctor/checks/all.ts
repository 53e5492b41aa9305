/**
 * All checks of kernels. To add one: an {@linkcode OpCase} in a file here, of the op's subject.
 *
 * @module
 */
import type { OpCase } from "../cases/check_case.ts";
import type { Random } from "../cases/random.ts";
import { denseAttentionCases, sparseAttentionCases } from "./attention.ts";
import { decodingCases } from "./decoding.ts";
import { indexerLossCases, measurementCases, selectionCases } from "./indexer.ts";
import { productCases } from "./products.ts";
import { rowOpCases } from "./row_ops.ts";
import { tokenOpCases } from "./token_ops.ts";
import { updateCases } from "./updates.ts";

/** Cases with random inputs, made anew with every call and always in the same order. */
export function allCases(random: Random): OpCase[] {
  const families = [
    ...[rowOpCases, productCases, tokenOpCases, denseAttentionCases, sparseAttentionCases],
    ...[selectionCases, indexerLossCases, measurementCases, decodingCases, updateCases],
  ];
  return families.flatMap((family) => family(random));
}
