/**
 * Selectors side by side on the weights of one model, each with as many keys as the bytes that it
 * may read for a token allow.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import { hasIndexer } from "../config/stages.ts";
import type { Stage } from "../config/stage_fields.ts";
import { cachePerToken } from "../costs/costs.ts";
import type { Batch } from "../data/dataset.ts";
import type { Engine, Variant } from "../engine.ts";
import { hitsOf, inAnyLayer, meanShare } from "../measure/gold_recall.ts";
import { rightAnswers } from "../measure/evaluate.ts";
import { requireFinite } from "../model/finite.ts";
import { modelParameters } from "../model/parameters.ts";
import { viewOf } from "../model/stage_view.ts";
import { languageModel } from "../model/transformer.ts";
import type { Device } from "../open_device.ts";
import { type SelectorName, selectors } from "../ops/select/selectors/selectors.ts";
import type { SavedModel } from "../runs/load_model.ts";
import { type Interval, pairedInterval } from "../statistics/interval.ts";

/** Parts and multiples of a model's own k that set the budgets. */
const SHARES = [1 / 4, 1 / 2, 1, 2, 4];

/** A selector within a budget. */
export interface SelectorRow {
  /** Keys of the indexer, or where there is none of any rule, that read as much; null: all keys. */
  readonly budget: number | null;
  /** Who chooses. */
  readonly selector: SelectorName;
  /** Keys that this one may take for a query, in each group of heads. */
  readonly keys: number;
  /** Bytes read for the token at position `seqLen`, all layers. */
  readonly readBytes: number;
  /** Whether that is more than the budget, with whatever k: it reads all keys to choose. */
  readonly isOver: boolean;
  /** Nats a scored token. */
  readonly loss: number;
  /** What it loses against all keys, a token, in the mean over sequences, paired by sequence. */
  readonly toDense: Interval;
  /** Share of right answers; null for texts. */
  readonly accuracy: number | null;
  /** Share of answers whose gold position any layer selects; null for texts and all keys. */
  readonly goldRecall: number | null;
}

/** What each sequence scores. */
interface Score {
  readonly nats: readonly number[];
  readonly loss: number;
  readonly accuracy: number | null;
  readonly goldRecall: number | null;
}

/**
 * Validation loss and answers under each selector. The budgets are what the indexer reads at a
 * quarter, half, one, two and four times the model's k (`cachePerToken`); a rule that reads no index
 * takes more keys for that. `dense` comes first.
 *
 * @throws {NotFinite} if a loss is NaN or infinite
 */
export async function compareSelectors(
  device: Device,
  { model, stage, batches, note = () => {} }: {
    model: SavedModel;
    stage: Stage;
    batches: readonly Batch[];
    note?: (line: string) => void;
  },
): Promise<SelectorRow[]> {
  const { config } = model;
  const score = async (selector: SelectorName, keys: number): Promise<Score> => {
    const view = { ...viewOf(stage, config), selector, indexTopk: keys, kl: "none" as const };
    using engine = await device.open({
      parameters: modelParameters(config),
      initial: model.parameters,
      loss: languageModel(config, { stage: view }),
      ...{ batchSize: config.batchSize, seqLen: config.seqLen, trained: [] },
    });
    const own = await scored(engine, config.seqLen, batches);
    const isAsked = own.accuracy !== null && selector !== "dense";
    const loss = languageModel(config, { stage: { ...view, selections: true } });
    const variant = { name: "selections", loss };
    const goldRecall = isAsked ? await recalled(engine, { config, batches, variant }) : null;
    return { ...own, goldRecall };
  };
  const plans = budgets(config, stage);
  const rows: SelectorRow[] = [];
  let dense: Score | null = null;
  for (const [i, { budget, selector, keys, ...reads }] of plans.entries()) {
    note(`${i + 1}/${plans.length}: ${selector} with ${keys} keys`);
    const own = await score(selector, keys);
    dense ??= own;
    const toDense = pairedInterval(own.nats, dense.nats);
    const { loss, accuracy, goldRecall } = own;
    rows.push({ budget, selector, keys, ...reads, loss, toDense, accuracy, goldRecall });
  }
  return rows;
}

type Planned = Omit<SelectorRow, "loss" | "toDense" | "accuracy" | "goldRecall">;

/** What is to be compared, `dense` first. */
function budgets(config: RunConfig, stage: Stage): Planned[] {
  const { seqLen } = config;
  // What chooses among all keys reads all: budgets are then those of keys without an index.
  const own = hasIndexer(config) ? "learned" : "recency";
  const k = Math.min(stage.indexTopk, seqLen);
  const ks = [...new Set(SHARES.map((share) => Math.round(k * share)))]
    .filter((k) => k >= 1 && k < seqLen);
  const bytes = (selector: SelectorName, indexTopk: number) => {
    const isDense = selector === "dense";
    const as = isDense ? config : { ...config, selector };
    return cachePerToken(as, { ...stage, attention: isDense ? "dense" : "sparse", indexTopk })
      .readBytes;
  };
  const whole = { budget: null, selector: "dense", keys: seqLen, isOver: false } as const;
  const compared = comparable(config).map((selector) =>
    [selector, bytes(selector, 1), bytes(selector, 2)] as const
  );
  return [
    { ...whole, readBytes: bytes("dense", seqLen) },
    ...ks.flatMap((budget) => {
      const most = bytes(own, budget);
      return compared.map(([selector, one, two]): Planned => {
        // All that is read does not grow with k: then it takes as many keys as the model's own.
        const fitting = two > one ? Math.floor((most - one) / (two - one)) + 1 : budget;
        const isOver = fitting < 1 || two === one && one > most;
        const keys = isOver ? budget : Math.min(fitting, seqLen);
        return { budget, selector, keys, readBytes: bytes(selector, keys), isOver };
      });
    }),
  ];
}

/** Selectors that the model can be put under, its own first. */
function comparable(config: RunConfig): SelectorName[] {
  // Where attention itself selects, that is what `learned` is.
  const hasScores = (name: SelectorName) =>
    hasIndexer(config) || config.indexKeyInput === "native" && name === "learned";
  return (Object.keys(selectors) as SelectorName[]).filter((name) =>
    name !== "dense" && (selectors[name].by !== "index" || hasScores(name))
  );
}

async function recalled(
  engine: Engine,
  { config, batches, variant }: {
    config: RunConfig;
    batches: readonly Batch[];
    variant: Variant;
  },
): Promise<number> {
  const found = [];
  for (const batch of batches) {
    found.push(...inAnyLayer(await hitsOf(engine, { config, batch, variant })));
  }
  return meanShare(found);
}

async function scored(
  engine: Engine,
  seqLen: number,
  batches: readonly Batch[],
): Promise<Omit<Score, "goldRecall">> {
  const sequences: number[] = [];
  let nats = 0, count = 0, right = 0, answers = 0;
  for (const batch of batches) {
    const losses = await engine.tokenLosses(batch);
    for (let first = 0; first < losses.length; first += seqLen) {
      const own = [...losses.subarray(first, first + seqLen)]
        .filter((_, i) => batch.targets[first + i] >= 0);
      if (!own.length) continue;
      const sum = own.reduce((a, b) => a + b, 0);
      sequences.push(sum / own.length);
      nats += sum;
      count += own.length;
    }
    if (!batch.answers) continue;
    const found = rightAnswers(await engine.logits(batch.tokens), batch);
    right += found.filter(Boolean).length;
    answers += found.length;
  }
  const loss = nats / count;
  requireFinite({ loss });
  return { nats: sequences, loss, accuracy: answers ? right / answers : null };
}
