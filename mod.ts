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

// Configuration.
export {
  type ConfigInput,
  type ConfigKey,
  configKeys,
  fields,
  parseOverrides,
  resolveConfig,
  type RunConfig,
} from "./src/config/config.ts";
export {
  type Delta,
  type Experiment,
  experimentNames,
  loadExperiment,
  resolveDelta,
  type Value,
} from "./src/config/experiment.ts";
export { type Effect, type Field, groups, type ValuesOf } from "./src/config/fields.ts";
export { fromHuggingFace, toHuggingFace } from "./src/config/hugging_face.ts";
export { type Stage, stageFields, type StageInput } from "./src/config/stage_fields.ts";
export {
  hasIndexer,
  isIndexed,
  recipes,
  resolveStages,
  stageAt,
  type StageSpan,
  stageSpans,
  usesIndexer,
} from "./src/config/stages.ts";

// Data.
export type { PackageOptions } from "./src/data/corpora/package_texts.ts";
export type { Patience } from "./src/data/corpora/registry.ts";
export { type CorpusOptions, openCorpus } from "./src/data/corpus.ts";
export { type Batch, type Dataset, type DatasetOptions, openDataset } from "./src/data/dataset.ts";
export type { DataIdentity, PackageSource } from "./src/data/identity.ts";
export type { Corpus, Split, TextPart } from "./src/data/splits.ts";
export type { DocumentWindows } from "./src/data/windows.ts";
export type { CopyOptions } from "./src/data/tasks/copy.ts";
export type { DyckOptions } from "./src/data/tasks/dyck.ts";
export type { InductionOptions } from "./src/data/tasks/induction.ts";
export type { MqarOptions } from "./src/data/tasks/mqar.ts";
export type { MultihopOptions } from "./src/data/tasks/multihop.ts";
export type { NeedleOptions } from "./src/data/tasks/needle.ts";
export type { RecallOptions } from "./src/data/tasks/recall.ts";
export type { SelectiveCopyOptions } from "./src/data/tasks/selective_copy.ts";
export {
  type Answer,
  type DistanceOptions,
  goldOf,
  type VocabularyOptions,
} from "./src/data/tasks/task.ts";
export { type TaskOptions, taskText } from "./src/data/tasks/tasks.ts";
export {
  type ByteLevelJson,
  type Tokenizer,
  TOKENIZER_CONFIG,
  type TokenizerJson,
  type TokenizerKind,
} from "./src/data/tokenizer/tokenizer.ts";
export { createTokenizer, loadTokenizer } from "./src/data/tokenizer/tokenizers.ts";

// Model.
export { groupedQueryAttention } from "./src/model/grouped_query_attention.ts";
export {
  latentAttention,
  type LatentProjections,
  latentProjections,
} from "./src/model/latent_attention.ts";
export { decodingModel } from "./src/model/decode.ts";
export { type IndexerInputs, lightningIndexer } from "./src/model/indexer.ts";
export { sparseAttention } from "./src/model/sparse_attention.ts";
export type { LayerContext, LayerResult, Selection, TokenContext } from "./src/model/layer.ts";
export { mixtureOfSparseAttention } from "./src/model/mosa.ts";
export { initialParameters, modelParameters } from "./src/model/parameters.ts";
export { denseView, type KeptTensor, type StageView, viewOf } from "./src/model/stage_view.ts";
export {
  languageModel,
  type Parameters,
  residualStream,
  transformer,
  type TransformerOutput,
} from "./src/model/transformer.ts";

// Ops, selectors and kernels.
export type { HeadDims } from "./src/kernels/attention/heads.ts";
export type { Indexer, Teacher } from "./src/kernels/indexer/indexer.ts";
export type { Pool } from "./src/kernels/select/block_pool.ts";
export type { TieRule } from "./src/kernels/select/top_k.ts";
export type { Capabilities } from "./src/kernels/wgsl/device.ts";
export type { Kernel, KernelVariants } from "./src/kernels/wgsl/kernel.ts";
export type { Access, Layout } from "./src/kernels/wgsl/operand.ts";
export type { Sink } from "./src/kernels/wgsl/sink.ts";
export type { MlaAttentionDims } from "./src/ops/attention/mla_attention.ts";
export type { MlaHeads } from "./src/ops/attention/mla_heads.ts";
export type { ScoringTensors, TeacherTensors } from "./src/ops/indexer/teacher.ts";
export {
  type Backend,
  Derivation,
  type Dtype,
  type GradientSink,
  type Matrix,
  matrixType,
  type Op,
  type OpGradients,
  type Recorder,
  requireShapes,
  type Storage,
  type Tensor,
  type TensorType,
  type Tf,
  type TfMatrix,
} from "./src/ops/op.ts";
export type {
  AttentionTensors,
  IndexerTensors,
  SelectionContext,
  Selector,
} from "./src/ops/select/selectors/selector.ts";
export { type SelectorName, selectors } from "./src/ops/select/selectors/selectors.ts";
export type { RopeLayout, RopeSpec, Rotation } from "./src/ops/token/rope.ts";

// Engines and devices.
export type {
  DecodeFunction,
  DecodeInputs,
  Decoder,
  DecodeResult,
  Engine,
  EngineOptions,
  EngineState,
  GroupHyper,
  LossFunction,
  LossResult,
  Metrics,
  ParameterSpec,
  StepHyper,
  StepInputs,
  Variant,
} from "./src/engine.ts";
export { GpuError, MemoryError, UserError, WriteError } from "./src/errors.ts";
export { type Device, openDevice } from "./src/open_device.ts";
export { philox4x32, Rng } from "./src/rng.ts";
export { Gpu } from "./src/webgpu/device/device.ts";

// Training and runs.
export type { FileSum } from "./src/files/checksum.ts";
export { FolderLock, type LockPurpose } from "./src/files/lock.ts";
export {
  readSafetensors,
  type Safetensors,
  type StoredTensor,
  type TensorData,
  type TensorDtype,
  writeSafetensors,
} from "./src/files/safetensors.ts";
export {
  type Checkpoint,
  checkpointAt,
  checkpointView,
  latestCheckpoint,
  loadCheckpoint,
  newestCheckpoint,
  saveCheckpoint,
} from "./src/runs/checkpoint.ts";
export type { Snapshot } from "./src/runs/checkpoint_files.ts";
export { Diverged } from "./src/runs/diverged.ts";
export { loadModel, type LoadPurpose, type SavedModel } from "./src/runs/load_model.ts";
export type { LogMark } from "./src/runs/log_mark.ts";
export {
  type CriterionEnd,
  type MetricsRow,
  readMetrics,
  readSummary,
  RunFolder,
  RUNS,
  type RunStatus,
  type Summary,
} from "./src/runs/run_folder.ts";
export type { Job } from "./src/train/job.ts";
export { train } from "./src/train/loop.ts";
export {
  formatDuration,
  formatProgress,
  Progress,
  type ProgressOutput,
  type ProgressUpdate,
} from "./src/train/progress.ts";
export { resumeConfig } from "./src/train/resume.ts";
export { openRunData, type Outcome, type RunOptions, startRun } from "./src/train/run.ts";
export { learningRate, type ScheduleConfig } from "./src/train/schedule.ts";

// Evaluation, decoding and measurements.
export {
  type CacheCost,
  cachePerToken,
  countParameters,
  type ForwardFlops,
  forwardFlopsPerToken,
  type ParameterCount,
  type StageCosts,
  teacherFlopsPerToken,
  trainingFlopsPerToken,
} from "./src/costs/costs.ts";
export { describeCosts } from "./src/costs/description.ts";
export { compareSelectors, type SelectorRow } from "./src/eval/compare_selectors.ts";
export {
  evaluateModel,
  type EvaluationReport,
  type LayerReport,
} from "./src/eval/evaluate_model.ts";
export {
  compareWithGolden,
  type ParityCase,
  type ParityTensor,
  passes,
  worst,
} from "./src/eval/parity.ts";
export type { WholeOptions, WholeReport } from "./src/eval/evaluate_whole.ts";
export type { LongTokensReport } from "./src/eval/long_tokens.ts";
export type { SplitReport } from "./src/eval/whole_split.ts";
export { reportTables } from "./src/eval/report_tables.ts";
export { isCausal, sample, type SampleOptions } from "./src/infer/sample.ts";
export { evaluate, rightAnswers } from "./src/measure/evaluate.ts";
export {
  type DensityReport,
  latentDensity,
  type LayerDensity,
} from "./src/measure/density/density.ts";
export type { HeadShares } from "./src/measure/density/head_tax.ts";
export type { ProbedBits } from "./src/measure/density/probe.ts";
export { measureIndexer, SWAPPED, swapTest } from "./src/measure/indexer.ts";
export { type InformationDensity, measureDensity } from "./src/measure/latents.ts";

// Ablations and their statistics.
export {
  type AblationPlan,
  type PlannedRun,
  planRuns,
  REAL_SIZE,
  sized,
} from "./src/ablate/plan.ts";
export type {
  AblationResults,
  AdditiveFit,
  Estimate,
  RunResult,
  SummaryRow,
} from "./src/ablate/results.ts";
export { type AblationJob, runAblation } from "./src/ablate/runner.ts";
export { runsCsv } from "./src/ablate/runs_csv.ts";
export { estimate } from "./src/ablate/summary.ts";
export { formatEstimate, resultsTable } from "./src/ablate/table.ts";
export {
  type BootstrapInterval,
  bootstrapInterval,
  type BootstrapOptions,
} from "./src/statistics/bootstrap.ts";
export {
  normalCdf,
  normalQuantile,
  studentCdf,
  studentQuantile,
} from "./src/statistics/distributions.ts";
export { type Interaction, interactionOf, type Price } from "./src/statistics/interaction.ts";
export {
  differenceInterval,
  expInterval,
  type Interval,
  LEVEL,
  meanInterval,
  pairedInterval,
  pValue,
  slopeInterval,
} from "./src/statistics/interval.ts";
export {
  ALPHA,
  type Equivalence,
  equivalence,
  holm,
  minimalDetectableEffect,
  pairsNeeded,
  POWER,
} from "./src/statistics/power.ts";

// Reports.
export { writeAblationReport } from "./src/report/ablation/ablation_report.ts";
export {
  heatMap,
  type Line,
  lineChart,
  type NotebookOutput,
  notebookTable,
} from "./src/report/page/notebook_figure.ts";
export { writeRunReport } from "./src/report/run/run_report.ts";
export { type LayerMaps, type SampleMaps, sampleMaps } from "./src/report/run/sample_maps.ts";
