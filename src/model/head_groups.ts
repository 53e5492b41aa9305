/**
 * Groups of heads that attend to a selection of their own (`indexGroups`), as those that share keys
 * in Native Sparse Attention (arXiv:2502.11089, §3.3.2) do: G of them, each with H / G consecutive
 * heads of attention and of the indexer. DeepSeek Sparse Attention has one.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { Tensor } from "../ops/op.ts";
import type { IndexerTensors } from "../ops/select/selectors/selector.ts";
import { columns } from "../ops/token/columns.ts";

/** What `make` makes of each group. */
export function byGroup<T>(
  { indexGroups }: Pick<RunConfig, "indexGroups">,
  make: (group: number) => T,
): T[] {
  return Array.from({ length: indexGroups }, (_, group) => make(group));
}

/** The layer as a group sees it: with its heads alone. */
export function groupConfig(config: RunConfig): RunConfig {
  const { indexGroups, numAttentionHeads, indexNHeads } = config;
  return {
    ...config,
    numAttentionHeads: numAttentionHeads / indexGroups,
    indexNHeads: indexNHeads / indexGroups,
  };
}

/** Of a matrix `[rows, heads · n]` the columns of a group's heads. */
export function headsOfGroup(
  x: Tensor,
  group: number,
  { indexGroups }: Pick<RunConfig, "indexGroups">,
): Tensor {
  const cols = x.cols / indexGroups;
  return indexGroups === 1 ? x : columns(x, group * cols, cols);
}

/**
 * The indexer of a group: the heads of its own on the keys that all groups share. Their scores are
 * scaled as those of an indexer with as many heads.
 */
export function indexerOfGroup(
  { qI, kI, w, indexer }: IndexerTensors,
  group: number,
  config: RunConfig,
): IndexerTensors {
  const heads = indexer.heads / config.indexGroups;
  const scale = (heads * indexer.dim) ** -0.5;
  return {
    ...{ qI: headsOfGroup(qI, group, config), kI, w: headsOfGroup(w, group, config) },
    indexer: { ...indexer, heads, scale },
  };
}

/** The name of what a group has of a layer's maps: its own where there is but one group. */
export function mapOfGroup(
  name: string,
  group: number,
  { indexGroups }: Pick<RunConfig, "indexGroups">,
): string {
  return indexGroups === 1 ? name : `group${group}.${name}`;
}
