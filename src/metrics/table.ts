/**
 * What each metric is: the one place that knows. To add a metric, log it under a name and add its
 * line here; results, tables and reports follow.
 *
 * @module
 */

/** What is to be known of a metric. */
export interface MetricInfo {
  /** What it is measured in; empty for plain numbers. */
  readonly unit: "" | "nats" | "bits/B" | "share" | "ms" | "tokens" | "tokens/s";
  /** What it tells, in a phrase. */
  readonly caption: string;
  /** Which way is better; null where neither is. */
  readonly better: "less" | "more" | null;
}

const info = (
  unit: MetricInfo["unit"],
  caption: string,
  better: MetricInfo["better"] = null,
): MetricInfo => ({ unit, caption, better });

/** By name, without the layer; `*` stands for whatever comes last. */
const METRICS: Readonly<Record<string, MetricInfo>> = {
  "stage": info("", "number of the stage, from 0"),
  "train/loss": info("nats", "mean next-token loss of a step's tokens", "less"),
  "train/kl": info("nats", "the indexer's divergence from its teacher, mean over layers", "less"),
  "train/tokens": info("tokens", "tokens trained on so far"),
  "grad/norm/*": info("", "norm of a group's gradient, before clipping"),
  "lr/*": info("", "learning rate of a group"),
  "time/step_ms": info("ms", "wall-clock time of a step, mean since the last row"),
  "time/tokens_per_s": info("tokens/s", "tokens trained on in a second"),
  "time/gpu/*": info("ms", "GPU time of a group of kernels in a step"),

  "val/loss": info("nats", "mean loss of the validation tokens that are scored", "less"),
  "val/bpb": info("bits/B", "the same nats over the bytes of the same tokens", "less"),
  "val/accuracy": info("share", "scored tokens of which the most likely one is right", "more"),
  "until/met": info("", "1 where a stage met its criterion, 0 where it ended without", "more"),
  "until/steps": info("", "steps of a stage until it met its criterion, or all of them", "less"),
  "swap/*": info("nats", "validation loss of the same weights under another selector", "less"),

  "index/kl": info("nats", "divergence over the keys of the stage's loss, of a layer", "less"),
  "index/dense_kl": info("nats", "divergence from dense attention over all keys", "less"),
  "index/captured_mass": info("share", "dense attention's weight on the selected keys", "more"),
  "index/oracle_mass": info("share", "the most that as many keys could capture"),
  "index/random_mass": info("share", "what as many keys at random would capture"),
  "index/set_overlap": info("share", "keys of the oracle that are selected", "more"),
  "index/score_recall": info("share", "captured mass relative to the oracle's", "more"),
  "index/gold_recall": info("share", "answers whose gold position is selected", "more"),
  "index/union_size": info("", "keys that groups of heads select together, multiples of k"),
  "index/gold_recall_any": info("share", "answers whose gold position any layer selects", "more"),
  "index/neighbour_overlap": info("share", "selected keys that the layer below selects, too"),
  "index/target_entropy": info("share", "entropy of dense attention, of the largest possible"),
  "index/index_entropy": info("share", "entropy of the indexer, of the largest possible"),
  "index/dead_scores": info("share", "index scores that are exactly 0", "less"),
  "index/score_mean": info("", "mean index score"),
  "index/score_std": info("", "standard deviation of the index scores"),
  "index/sink_share": info("share", "rows that select the first token"),
  "index/local_share": info("share", "selected keys less than 16 back"),
  "index/tied_rows": info("share", "rows where keys of one score are in and out", "less"),
  "index/distance/*": info("share", "selected keys at distances of a power of two"),

  "latent/effective_rank": info("", "directions that the latents use", "more"),
  "latent/spectral_rank": info("", "directions that they use, by the spectrum's entropy", "more"),
  "latent/reconstruction_error": info("share", "variance of the input that latents lack", "less"),
  "latent/variance/*": info("share", "variance in the leading directions"),
};

/**
 * What a metric is, or null for one that is not known. A name may have a prefix: that of a stage
 * (`twin/val/loss`) or of an evaluation (`k=16/val/loss`).
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { metricInfo } from "./table.ts";
 *
 * assert.equal(metricInfo("k=16/index/3/captured_mass")?.better, "more");
 * assert.equal(metricInfo("grad/norm/backbone")?.better, null);
 * assert.equal(metricInfo("mood"), null);
 * ```
 */
export function metricInfo(name: string): MetricInfo | null {
  for (let path = name.split("/"); path.length > 0; path = path.slice(1)) {
    const bare = path.filter((part, i) => i !== 1 || !Number.isInteger(Number(part)));
    const open = [...bare.slice(0, -1), "*"];
    const own = METRICS[bare.join("/")] ?? METRICS[open.join("/")];
    if (own) return own;
  }
  return null;
}

/** `mean loss of … (nats), less is better`; empty for a metric that is not known. */
export function describeMetric(name: string): string {
  const known = metricInfo(name);
  if (!known) return "";
  const { unit, caption, better } = known;
  return `${caption}${unit && ` (${unit})`}${better ? `, ${better} is better` : ""}`;
}

/** Whether less of a metric is better; of one that is not known, too. */
export function isLessBetter(name: string): boolean {
  return metricInfo(name)?.better !== "more";
}
