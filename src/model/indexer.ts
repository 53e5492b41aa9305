/**
 * The lightning indexer (DeepSeek-V3.2, arXiv:2512.02556, eq. 1).
 *
 * N = batch · seqLen tokens: queries qI `[N, indexNHeads · indexHeadDim]`, keys kI
 * `[N, indexHeadDim]`, signed weights of the heads w `[N, indexNHeads]`. The score of key s for
 * query t is scale · Σ_j w[t, j] · act(qI_j[t] · kI[s]).
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { TokenContext } from "./layer.ts";
import { inBits } from "./precision.ts";
import { columns } from "../ops/token/columns.ts";
import { detach } from "../ops/token/detach.ts";
import { layerNorm } from "../ops/token/layer_norm.ts";
import { linear } from "../ops/token/linear.ts";
import type { Tensor } from "../ops/op.ts";
import type { IndexerTensors } from "../ops/select/selectors/selector.ts";

/** Epsilon of the key norm, as in DeepSeek-V3.2. */
const KEY_NORM_EPS = 1e-6;

/** What the indexer may read, `[N, …]` each. */
export interface IndexerInputs {
  /** Normed query latent; null where queries are not compressed. */
  readonly qLatent: Tensor | null;
  /** Normed block input. */
  readonly hidden: Tensor;
  /** Normed key-value latent. */
  readonly kvLatent: Tensor;
  /** The key that all heads share, before its rotation. */
  readonly ropeKey: Tensor;
}

/**
 * Queries, keys and head weights of the lightning indexer (DeepSeek-V3.2 report, eq. 1): one key for
 * all heads, normed with mean and bias; rotary embedding on the *first* dims of a head, half-split,
 * the opposite of MLA in both; head weights signed. Its inputs are detached, unless
 * `indexerDetach=false`: then its loss trains what lies before it, too.
 *
 * With `indexKeyInput` of `kvLatent` or `kvLatentRope` keys are made from what MLA caches, and need no cache of
 * their own: see {@linkcode latentIndexKeys}.
 *
 * @param latentKeys makes those keys: by default of the same tokens, in decoding of all cached ones
 */
export function lightningIndexer(
  inputs: IndexerInputs,
  layer: TokenContext,
  latentKeys = () => latentIndexKeys(inputs, layer),
): IndexerTensors {
  const { config: c, weight } = layer;
  const { indexNHeads: heads, indexHeadDim: dim } = c;
  const { hidden } = inputs;
  const indexer = {
    ...{ heads, dim, activation: c.indexActivation },
    scale: (heads * dim) ** -0.5,
  };
  const qI = indexQueries(inputs, layer);
  if (c.indexKeyInput !== "hidden") {
    const w = linear(given(hidden, c), weight("indexer.weights_proj"));
    return { qI, kI: latentKeys(), w, indexer };
  }
  // One product makes the keys and the head weights.
  const own = [weight("indexer.wk"), weight("indexer.weights_proj")];
  const keyAndWeights = linear(given(hidden, c), own);
  const kI = finished(columns(keyAndWeights, 0, dim), layer);
  return { qI, kI, w: columns(keyAndWeights, dim, heads), indexer };
}

function indexQueries(inputs: IndexerInputs, layer: TokenContext): Tensor {
  const { config: c, weight } = layer;
  const source = inputs[c.indexInput];
  if (!source) throw new TypeError("The model has no query latent for its indexer");
  const queries = rotated(linear(given(source, c), weight("indexer.wq_b")), c.indexNHeads, layer);
  return inBits(queries, c.indexBits, c, c.indexNHeads);
}

/**
 * Index keys of the rows of a cache, or of a sequence: W_k c of the normed latent c (`kvLatent`), or
 * W_k [c ; k_pe] with the rope key before its rotation (`kvLatentRope`).
 */
export function latentIndexKeys(
  { kvLatent, ropeKey }: Pick<IndexerInputs, "kvLatent" | "ropeKey">,
  layer: TokenContext,
): Tensor {
  const { config: c, weight } = layer;
  const ofRope = c.indexKeyInput === "kvLatentRope"
    ? linear(given(ropeKey, c), weight("indexer.wk_rope"))
    : undefined;
  return finished(linear(given(kvLatent, c), weight("indexer.wk"), ofRope), layer);
}

/** What nothing of the indexer's loss passes. */
function given(x: Tensor, { indexerDetach }: RunConfig): Tensor {
  return indexerDetach ? detach(x) : x;
}

/** Keys, normed, rotated, and in `indexBits`. */
function finished(key: Tensor, layer: TokenContext): Tensor {
  const { config: c, weight } = layer;
  const normed = c.indexKeyNorm === "none"
    ? key
    : layerNorm(key, weight("indexer.k_norm"), weight("indexer.k_norm", "bias"), KEY_NORM_EPS);
  return inBits(rotated(normed, 1, layer), c.indexBits, c);
}

function rotated(x: Tensor, heads: number, { config: c, rotate }: TokenContext): Tensor {
  const { indexHeadDim: headDim, qkRopeHeadDim: dims, indexRope, ropeTheta: theta } = c;
  return indexRope === "none"
    ? x
    : rotate(x, { heads, headDim, start: 0, dims, layout: indexRope, theta });
}
