/**
 * What a run is made of.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { Dataset } from "../data/dataset.ts";
import type { Device } from "../open_device.ts";
import type { Checkpoint } from "../runs/checkpoint.ts";
import type { Progress } from "./progress.ts";
import type { RunFolder } from "../runs/run_folder.ts";

/** Everything a run consists of. */
export interface Job {
  /** The run's configuration. */
  readonly config: RunConfig;
  /** What it trains on. */
  readonly dataset: Dataset;
  /** Where it trains. */
  readonly device: Device;
  /** Makes or opens the run folder. Called once, when the first stage's model is on the device. */
  readonly openRun: () => RunFolder;
  /** Where it tells how far it is. */
  readonly progress: Pick<Progress, "update" | "note">;
  /** Step at which to stop, the end of a stage; default: the end of the run. */
  readonly until?: number;
  /** Where to go on; null starts with new weights. */
  readonly checkpoint: Checkpoint | null;
  /** Asked between steps; true saves and stops. */
  readonly shouldStop: () => boolean;
}
