/**
 * What is looked at between training steps: losses, latents, the indexer, a sample.
 *
 * @module
 */
import type { Engine, Metrics } from "../engine.ts";
import { measureDensity } from "../measure/latents.ts";
import { isCausal, sample } from "../infer/sample.ts";
import { decodingModel } from "../model/decode.ts";
import { viewOf } from "../model/stage_view.ts";
import { Rng } from "../rng.ts";
import { isIndexed, type StageSpan } from "../config/stages.ts";
import { evaluate } from "../measure/evaluate.ts";
import type { Job } from "./job.ts";
import { measureIndexer, swapTest } from "../measure/indexer.ts";
import { describeEvaluation, describeMeasurement, describeSwap } from "./notes.ts";

/** A step of a stage that has been done. */
export interface StepDone {
  readonly engine: Engine;
  readonly span: StageSpan;
  /** Finished steps of the run. */
  readonly step: number;
  /** Whether what is done every so many steps, and at a stage's end, is to be done now. */
  readonly due: (every: number) => boolean;
}

/** Evaluates and measures what is due after a step. */
export async function observe(
  { config, dataset, progress }: Pick<Job, "config" | "dataset" | "progress">,
  { engine, span: { stage, index, start, end }, step, due }: StepDone,
): Promise<Metrics> {
  const values: Metrics = {};
  const keep = (found: Metrics, line: string | null) => {
    Object.assign(values, found);
    if (line) progress.note(line);
  };
  if (due(config.evalEvery)) {
    const found = await evaluate(engine, { dataset, batches: config.evalBatches });
    keep(found, describeEvaluation(step, found));
  }
  const firstBatch = () => dataset.batch("validation", 0);
  if (config.attention === "mla" && due(config.measureEvery)) {
    keep(await measureDensity(engine, { config, stage, batch: firstBatch() }), null);
  }
  if (!isIndexed(stage)) return values;
  if (due(config.measureEvery) || step === start + 1) {
    const found = await measureIndexer(engine, { config, stage, batch: firstBatch() });
    keep(found, describeMeasurement(step, found));
  }
  const isLastStage = index === config.stages.length - 1;
  if (step === end && (isLastStage || stage.attention === "sparse")) {
    const count = Math.min(config.evalBatches, dataset.validationBatches);
    const batches = Array.from({ length: count }, (_, i) => dataset.batch("validation", i));
    const found = await swapTest(engine, { config, stage, batches });
    keep(found, describeSwap(found));
  }
  return values;
}

/** Why a run on text has no samples though it asks for some; null where nothing is to be said. */
export function sampleNote(
  { config, dataset: { tokenizer } }: Pick<Job, "config" | "dataset">,
): string | null {
  return !tokenizer || config.sampleTokens === 0 || isCausal(config)
    ? null
    : "no samples: heads of attention=mosa with mosaCausal=false pick among later tokens, too";
}

/** A sample of text, or null where none is due, the data has no text, or the model writes none. */
export async function sampleText(
  { config, dataset: { tokenizer } }: Pick<Job, "config" | "dataset">,
  { engine, span, step }: StepDone,
): Promise<string | null> {
  const { sampleEvery, sampleTokens, samplePrompt, stages } = config;
  const isEnd = step === span.end && span.index === stages.length - 1;
  const isDue = isEnd || sampleEvery > 0 && step % sampleEvery === 0;
  if (!isDue || !tokenizer || sampleTokens === 0 || !isCausal(config)) return null;
  const prompt = tokenizer.encode(samplePrompt);
  const tokens = await sample(engine, {
    prompt: prompt.length ? prompt : [0],
    count: sampleTokens,
    temperature: config.temperature,
    seqLen: config.seqLen,
    vocabSize: tokenizer.vocabSize,
    decoding: decodingModel(config, viewOf(span.stage, config)),
    rng: new Rng(config.seed, `sample ${step}`),
  });
  return samplePrompt + tokenizer.decode(tokens);
}
