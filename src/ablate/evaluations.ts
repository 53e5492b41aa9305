/**
 * Further evaluations of a run's last checkpoint, kept in `evaluations.json` of its folder.
 *
 * @module
 */
import { join } from "node:path";
import type { ConfigInput, RunConfig } from "../config/config.ts";
import type { Metrics } from "../engine.ts";
import { evaluateModel, type EvaluationReport } from "../eval/evaluate_model.ts";
import { stageSpans } from "../config/stages.ts";
import { UserError } from "../errors.ts";
import { loadModel } from "../runs/load_model.ts";
import { readJson } from "../files/files.ts";
import { anObject, aNull, aNumber, aRecord, either } from "../files/shape.ts";
import type { Device } from "../open_device.ts";
import { pretty, writeAside } from "../runs/run_folder.ts";
import type { RunData } from "./run_data.ts";

/** What `evaluations.json` holds, by name. */
type Saved = Record<string, { keys: ConfigInput; metrics: Metrics }>;

const savedShape = aRecord(
  anObject({ keys: aRecord(() => null), metrics: aRecord(either(aNull, aNumber)) }),
);

/** The metrics of all evaluations of a run, by name; null where there are none. */
export function readEvaluations(folder: string): Record<string, Metrics> | null {
  const saved = Object.entries(read(folder)).map(([name, { metrics }]) => [name, metrics]);
  return saved.length ? Object.fromEntries(saved) : null;
}

/** The evaluations that a run lacks, or that were not finite. */
export function missingEvaluations(
  folder: string,
  evaluate: Readonly<Record<string, ConfigInput>>,
): [name: string, keys: ConfigInput][] {
  const saved = read(folder);
  return Object.entries(evaluate).filter(([name, keys]) =>
    JSON.stringify(saved[name]?.keys) !== JSON.stringify(keys) ||
    !Object.values(saved[name].metrics).every(Number.isFinite)
  );
}

/** Evaluates a run and adds the result to its folder. */
export async function evaluateRun(
  folder: string,
  { name, keys, config, device, data }: {
    name: string;
    keys: ConfigInput;
    /** Of the run. */
    config: RunConfig;
    device: Device;
    data: RunData;
  },
): Promise<void> {
  const model = await loadModel(folder, keys);
  const { end } = stageSpans(config.stages).at(-1)!;
  if (model.step !== end) {
    throw new UserError(
      `Cannot evaluate ${folder}: its checkpoint of step ${end} is damaged or missing; remove the ` +
        "folder to train the run again",
    );
  }
  // Of another text than its own the model's tokenizer must be asked.
  const isOwn = model.config.data === config.data;
  const dataset = isOwn ? (await data.open(model.config)).dataset : undefined;
  const report = await evaluateModel(model, { device, dataset });
  const all = { ...read(folder), [name]: { keys, metrics: metricsOf(report) } };
  writeAside(join(folder, "evaluations.json"), pretty(all));
}

/** A report under the names of a run's log. */
function metricsOf(report: EvaluationReport): Metrics {
  const { loss, bitsPerByte, accuracy, index, swap } = report;
  const prefixed = (prefix: string, values: Metrics) =>
    Object.fromEntries(Object.entries(values).map(([name, value]) => [prefix + name, value]));
  return {
    "val/loss": loss,
    ...(bitsPerByte === null ? {} : { "val/bpb": bitsPerByte }),
    ...(accuracy === null ? {} : { "val/accuracy": accuracy }),
    ...prefixed("index/", index?.mean ?? {}),
    ...prefixed("swap/", swap ?? {}),
  };
}

function read(folder: string): Saved {
  const path = join(folder, "evaluations.json");
  const saved = readJson(path) ?? {};
  const wrong = savedShape(saved, "it");
  if (!wrong) return saved as Saved;
  throw new UserError(`Cannot read ${path}: it is damaged (${wrong}); remove it`);
}
