/**
 * What training tells people on the way, a line each.
 *
 * @module
 */
import type { Metrics } from "../engine.ts";
import type { Stage } from "../config/stage_fields.ts";

/** What a stage does: `600 steps, dense attention, trains backbone`. */
export function describeStage(stage: Stage): string {
  const attention = stage.attention === "sparse"
    ? `sparse attention to ${stage.indexTopk} latents`
    : "dense attention";
  const trained = stage.trains === "both" ? "backbone and indexer" : stage.trains;
  const loss = stage.kl === "none"
    ? ""
    : `, KL over ${stage.kl === "dense" ? "all" : "selected"} keys`;
  const steps = stage.until === null
    ? `${stage.steps} steps`
    : `at most ${stage.steps} steps, until ${stage.until}`;
  return `${steps}, ${attention}, trains ${trained}${loss}`;
}

/** The line of an evaluation. */
export function describeEvaluation(step: number, values: Metrics): string {
  const bits = "val/bpb" in values ? `, ${values["val/bpb"].toFixed(3)} bits a byte` : "";
  const right = "val/accuracy" in values
    ? `, ${(100 * values["val/accuracy"]).toFixed(1)} % right`
    : "";
  return `step ${step}: validation loss ${values["val/loss"].toFixed(4)}${bits}${right}`;
}

/** The line of a measurement of the selection; without an indexer there is no KL. */
export function describeMeasurement(step: number, values: Metrics): string {
  const percent = (name: string) => `${(100 * values[`index/${name}`]).toFixed(1)} %`;
  const { "index/dense_kl": kl } = values;
  return `step ${step}: the selection captures ${percent("captured_mass")} of the attention ` +
    `(oracle ${percent("oracle_mass")}, random ${percent("random_mass")})` +
    (kl === undefined ? "" : `, KL ${kl.toFixed(3)}`);
}

/** The line of a swap test. */
export function describeSwap(values: Metrics): string {
  const losses = Object.entries(values)
    .map(([name, loss]) => `${name.replace("swap/", "")} ${loss.toFixed(4)}`);
  return `swap test, validation loss by selector: ${losses.join(" | ")}`;
}
