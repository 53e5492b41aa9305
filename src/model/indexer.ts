/**
 * The lightning indexer (DeepSeek-V3.2, arXiv:2512.02556, eq. 1).
 *
 * N = batch · seqLen tokens: queries qI `[N, indexNHeads · indexHeadDim]`, keys kI
 * `[N, indexHeadDim]`, signed weights of the heads w `[N, indexNHeads]`. The score of key s for
 * query t is scale · Σ_j w[t, j] · act(qI_j[t] · kI[s]).
 *
 * @module
 */
import type { TokenContext } from "./layer.ts";
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
}

/**
 * Queries, keys and head weights of the lightning indexer (DeepSeek-V3.2 report, eq. 1): one key for
 * all heads, normed with mean and bias; rotary embedding on the *first* dims of a head, half-split,
 * the opposite of MLA in both; head weights signed. Its inputs are detached, unless
 * `indexerDetach=false`: then its loss trains what lies before it, too.
 */
export function lightningIndexer(inputs: IndexerInputs, layer: TokenContext): IndexerTensors {
  const { config: c, weight } = layer;
  const { indexNHeads: heads, indexHeadDim: headDim, qkRopeHeadDim: dims, ropeTheta: theta } = c;
  const source = inputs[c.indexInput];
  if (!source) throw new TypeError("The model has no query latent for its indexer");
  const given = c.indexerDetach ? detach : (x: Tensor) => x;
  const own = (name: string) => weight(`indexer.${name}`);
  const rotate = (x: Tensor, heads: number) =>
    c.indexRope === "none"
      ? x
      : layer.rotate(x, { heads, headDim, start: 0, dims, layout: c.indexRope, theta });

  const qI = rotate(linear(given(source), own("wq_b")), heads);
  // One product makes the keys and the head weights.
  const keyAndWeights = linear(given(inputs.hidden), [own("wk"), own("weights_proj")]);
  const key = columns(keyAndWeights, 0, headDim);
  const kI = rotate(
    c.indexKeyNorm === "none"
      ? key
      : layerNorm(key, own("k_norm"), weight("indexer.k_norm", "bias"), KEY_NORM_EPS),
    1,
  );
  const w = columns(keyAndWeights, headDim, heads);
  const scale = (heads * headDim) ** -0.5;
  return { qI, kI, w, indexer: { heads, dim: headDim, activation: c.indexActivation, scale } };
}
