/**
 * latentk trains small transformers with multi-head latent attention on Deno's native WebGPU.
 *
 * @example Train a model of your own loop
 * ```ts
 * import { initialParameters, languageModel, modelParameters } from "./mod.ts";
 * import { openDataset, openDevice, resolveConfig } from "./mod.ts";
 *
 * const config = resolveConfig({ data: "copy", hiddenSize: 32, numHiddenLayers: 1, recipe: "dense" }, [
 *   "batchSize=4",
 *   "seqLen=32",
 * ]);
 * const dataset = await openDataset({ ...config, taskOptions: config });
 * using device = await openDevice(config.device);
 * using engine = await device.open({
 *   parameters: modelParameters(config),
 *   initial: initialParameters(config),
 *   loss: languageModel(config),
 *   batchSize: config.batchSize,
 *   seqLen: config.seqLen,
 * });
 * for (let update = 1; update <= 3; update++) {
 *   const backbone = { lr: 1e-3, weightDecay: 0.1, clip: 1, update };
 *   const hyper = { beta1: 0.9, beta2: 0.95, eps: 1e-8, groups: { backbone } };
 *   engine.step([dataset.batch("train", update - 1)], hyper);
 * }
 * console.log(engine.description, await engine.metrics());
 * ```
 *
 * @module
 */
export {
  type AblationPlan,
  type PlannedRun,
  planRuns,
  REAL_SIZE,
  sized,
} from "./src/ablate/plan.ts";
export * from "./src/ablate/results.ts";
export { type AblationJob, runAblation } from "./src/ablate/runner.ts";
export { estimate } from "./src/ablate/summary.ts";
export { runsCsv } from "./src/ablate/runs_csv.ts";
export { formatEstimate, resultsTable } from "./src/ablate/table.ts";
export * from "./src/config/config.ts";
export * from "./src/costs/description.ts";
export * from "./src/costs/costs.ts";
export * from "./src/data/corpus.ts";
export * from "./src/data/dataset.ts";
export * from "./src/data/tokenizer.ts";
export * from "./src/data/tokenizers.ts";
export * from "./src/engine.ts";
export * from "./src/errors.ts";
export {
  evaluateModel,
  type EvaluationReport,
  type LayerReport,
} from "./src/eval/evaluate_model.ts";
export { type InformationDensity, measureDensity } from "./src/measure/latents.ts";
export * from "./src/runs/load_model.ts";
export * from "./src/eval/parity.ts";
export { reportTables } from "./src/eval/report_tables.ts";
export * from "./src/config/experiment.ts";
export * from "./src/config/fields.ts";
export * from "./src/config/hugging_face.ts";
export * from "./src/infer/sample.ts";
export * from "./src/model/attention.ts";
export * from "./src/model/decode.ts";
export * from "./src/model/indexer.ts";
export type * from "./src/model/layer.ts";
export * from "./src/model/mosa.ts";
export * from "./src/model/parameters.ts";
export * from "./src/model/stage_view.ts";
export * from "./src/model/transformer.ts";
export * from "./src/open_device.ts";
export { writeAblationReport } from "./src/report/ablation/ablation_report.ts";
export * from "./src/report/page/notebook_figure.ts";
export { writeRunReport } from "./src/report/run/run_report.ts";
export { type LayerMaps, type SampleMaps, sampleMaps } from "./src/report/run/sample_maps.ts";
export * from "./src/rng.ts";
export * from "./src/files/safetensors.ts";
export * from "./src/config/stage_fields.ts";
export * from "./src/config/stages.ts";
export * from "./src/statistics/bootstrap.ts";
export * from "./src/statistics/distributions.ts";
export * from "./src/statistics/interaction.ts";
export * from "./src/statistics/interval.ts";
export * from "./src/statistics/power.ts";
export * from "./src/runs/checkpoint.ts";
export type { Snapshot } from "./src/runs/checkpoint_files.ts";
export * from "./src/measure/evaluate.ts";
export * from "./src/train/job.ts";
export * from "./src/measure/indexer.ts";
export * from "./src/runs/log_mark.ts";
export * from "./src/train/loop.ts";
export * from "./src/train/progress.ts";
export * from "./src/train/resume.ts";
export * from "./src/train/run.ts";
export * from "./src/runs/run_folder.ts";
export * from "./src/train/schedule.ts";
export { Diverged } from "./src/runs/diverged.ts";
export { Gpu } from "./src/webgpu/device/device.ts";
export type { Answer } from "./src/data/tasks/task.ts";
export type { CopyOptions } from "./src/data/tasks/copy.ts";
export type { NeedleOptions } from "./src/data/tasks/needle.ts";
export type { RecallOptions } from "./src/data/tasks/recall.ts";
export type { VocabularyOptions } from "./src/data/tasks/task.ts";
export type { TaskOptions } from "./src/data/tasks/tasks.ts";
export type { Access, Kernel, KernelVariants, Layout } from "./src/kernels/wgsl/kernel.ts";
export type { Capabilities } from "./src/kernels/wgsl/device.ts";
export type * from "./src/ops/op.ts";
export type { Teacher } from "./src/ops/indexer/teacher.ts";
export type { RopeLayout, RopeSpec, Rotation } from "./src/ops/token/rope.ts";
export type * from "./src/ops/select/selectors/selector.ts";
export { type SelectorName, selectors } from "./src/ops/select/selectors/selectors.ts";
export type { Pool } from "./src/kernels/select/block_pool.ts";
export type { MlaAttentionDims } from "./src/ops/attention/mla_attention.ts";
