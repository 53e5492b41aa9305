/**
 * The data of an ablation's runs: opened once where they share it.
 *
 * @module
 */
import { requireRoom } from "../costs/room.ts";
import { configKeys, fields, type RunConfig } from "../config/config.ts";
import { type DataIdentity, requireSameData } from "../data/identity.ts";
import type { Dataset } from "../data/dataset.ts";
import { openRunData } from "../train/run.ts";

/** Opens datasets, and keeps the last one and all tokenizers. */
export class RunData {
  #last: { key: string; dataset: Dataset } | null = null;
  readonly #tokenizers = new Map<string, unknown>();
  /** Of each `data` that was opened. */
  readonly #identities = new Map<string, DataIdentity | null>();

  /** The data of a run, and its configuration with the data's vocabulary. See `openRunData`. */
  async open(config: RunConfig): Promise<{ config: RunConfig; dataset: Dataset }> {
    const { data, tokenizer, vocabSize, seed } = config;
    const key = `${dataKey(config)} ${seed}`;
    if (this.#last?.key === key) {
      const { dataset } = this.#last;
      return { dataset, config: { ...config, vocabSize: Math.max(vocabSize, dataset.vocabSize) } };
    }
    const vocabulary = JSON.stringify([data, tokenizer, vocabSize]);
    const opened = await openRunData(config, this.#tokenizers.get(vocabulary));
    const { identity } = opened.dataset;
    this.requireSame(data, identity, "the text has changed meanwhile");
    this.#identities.set(data, identity);
    const saved = opened.dataset.tokenizer?.toJSON();
    if (saved) this.#tokenizers.set(vocabulary, saved);
    this.#last = { key, dataset: opened.dataset };
    return opened;
  }

  /**
   * Refuses a text that is not the one which was opened here.
   *
   * @throws {UserError} saying how both differ
   */
  requireSame(data: string, other: DataIdentity | null | undefined, action: string): void {
    if (!this.#identities.has(data)) return;
    const wayOut = "put it back, or take another folder with name=…";
    requireSameData(this.#identities.get(data)!, other, { action, data, wayOut });
  }

  /**
   * Opens the data of all runs once, whatever their seeds.
   *
   * @throws {UserError} of the first that cannot be read, or does not fit it or into memory
   */
  async check(configs: readonly RunConfig[]): Promise<void> {
    for (const config of configs) requireRoom(config, "train");
    const byKey = new Map(configs.map((config) => [dataKey(config), config]));
    for (const config of byKey.values()) await this.open(config);
  }
}

/** All that the data depends on but the seed. */
function dataKey(config: RunConfig): string {
  const keys = configKeys.filter((key) => ["data", "task"].includes(fields[key].group));
  return JSON.stringify(keys.map((key) => config[key]));
}
