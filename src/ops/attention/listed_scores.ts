/**
 * The scores that attention along lists computes, left for the teacher of the indexer.
 *
 * @module
 */
import { type AttentionSpec, planAttention } from "../../kernels/attention/attention.ts";
import type { Capabilities } from "../../kernels/wgsl/device.ts";

/** Most bytes of the scores that are left. */
const SCORE_BYTES = 512 * 2 ** 20;

/**
 * Whether attention writes its scores [rows, heads * topk] where there is an output for them: if it
 * runs along lists as GPUs do, and they are not too many. Who reads them asks the same.
 */
export function leavesScores(spec: AttentionSpec, capabilities: Capabilities): boolean {
  const { dims, extent, selection } = spec;
  if (!selection || !("gather" in planAttention("forward", spec, capabilities))) return false;
  const bytes = 4 * extent.batch * extent.seqLen * dims.heads * selection.topk;
  return bytes <= Math.min(SCORE_BYTES, capabilities.maxBindingBytes);
}
