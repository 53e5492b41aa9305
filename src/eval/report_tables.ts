/**
 * The report of an evaluation, for people.
 *
 * @module
 */
import { textTable } from "../text/text_table.ts";
import { densityTable, describeDensity } from "./density_table.ts";
import { meanInterval } from "../statistics/interval.ts";
import type { WholeReport } from "./evaluate_whole.ts";
import type { EvaluationReport } from "./evaluate_model.ts";

/** Short aligned tables: losses, answers, indexers, selectors. */
export function reportTables(report: EvaluationReport): string {
  const { loss, bitsPerByte, accuracy, positions, accuracyByDistance, index, swap } = report;
  const parts = [
    `validation loss ${loss.toFixed(4)} nats` +
    (bitsPerByte === null ? "" : `, ${bitsPerByte.toFixed(4)} bits a byte`) +
    (accuracy === null ? "" : `, ${percent(accuracy)} right`),
    textTable([
      ["position", "tokens", "loss"],
      ...positions.map((row) => [range(row), String(row.count), row.loss.toFixed(4)]),
    ]),
  ];
  if (report.whole) parts.push(wholeTables(report.whole));
  if (accuracy !== null) {
    parts.push(textTable([
      ["distance", "answers", "right"],
      ...accuracyByDistance.map((row) => [range(row), String(row.count), percent(row.accuracy)]),
    ]));
  }
  if (index) parts.push(indexTable(index), distanceTable(index.layers));
  const gold = report.goldRecallByDistance;
  if (gold.length) {
    parts.push(textTable([
      [
        ...["gold at distance", "answers", "any layer"],
        ...gold[0].layers.map((_, layer) => `layer ${layer}`),
      ],
      ...gold.map((row) => [
        ...[range(row), String(row.count), percent(row.any)],
        ...row.layers.map(percent),
      ]),
    ]));
  }
  if (swap) {
    const lead = (nats: number) => `${nats < 0 ? "" : "+"}${nats.toFixed(4)}`;
    parts.push(textTable([
      ["selector", "loss", "to dense"],
      ...Object.entries(swap).map(([name, nats]) => [
        name,
        nats.toFixed(4),
        lead(nats - swap.dense),
      ]),
    ]));
  }
  if (report.density) {
    parts.push(textTable(densityTable(report.density)), describeDensity(report.density));
  }
  if (report.selectors) parts.push(selectorTable(report.selectors));
  return parts.join("\n\n");
}

/** Longest table of documents; all of them are in the JSON. */
const MOST_DOCUMENTS = 20;

function wholeTables({ tokens, loss, bitsPerByte, documents, ...files }: WholeReport): string {
  const count = (n: number) => n.toLocaleString("en-US");
  const parts = [
    `whole validation split, ${count(tokens)} tokens: loss ${loss.toFixed(4)} nats, ` +
    `${bitsPerByte.toFixed(4)} bits a byte`,
  ];
  if (documents.length > 1) {
    const { low, high } = meanInterval(documents.map(({ loss }) => loss));
    parts[0] += `; of a document, 95 % interval of the mean, ${low.toFixed(4)} to ${
      high.toFixed(4)
    }`;
    const longest = documents.toSorted((a, b) => b.tokens - a.tokens).slice(0, MOST_DOCUMENTS);
    const rest = documents.length - longest.length;
    parts.push(
      textTable([
        ["document", "tokens", "loss", "bits a byte"],
        ...longest.map((row) => [
          ...[row.name ?? "", count(row.tokens), row.loss.toFixed(4), row.bitsPerByte.toFixed(4)],
        ]),
      ]) + (rest ? `\n\nand ${rest} shorter documents: --json tells all` : ""),
    );
  }
  const { longTokens: long, tokenLosses } = files;
  if (long) {
    parts.push(
      `tokens whose far context matters, ${count(long.tokens)}: ` +
        (long.loss === null ? "no loss" : `loss ${long.loss.toFixed(4)} nats`) +
        ` (${long.file}, chosen by ${long.reference})`,
    );
  }
  if (tokenLosses) parts.push(`every token's loss: ${tokenLosses.file}`);
  return parts.join("\n\n");
}

/** Selectors by budget: with `*` what reads more, whatever its k. */
function selectorTable(rows: NonNullable<EvaluationReport["selectors"]>): string {
  const half = ({ low, high }: (typeof rows)[number]["toDense"]) =>
    Number.isNaN(low) ? "" : ` ± ${((high - low) / 2).toFixed(4)}`;
  const signed = (x: number) => `${x < 0 ? "" : "+"}${x.toFixed(4)}`;
  const hasAnswers = rows.some(({ accuracy }) => accuracy !== null);
  return textTable([
    [
      ...["reads as k =", "selector", "keys", "bytes a token", "loss", "to dense"],
      ...hasAnswers ? ["right", "gold recall"] : [],
    ],
    ...rows.map(({ budget, selector, keys, readBytes, isOver, loss, toDense, ...row }) => [
      budget === null ? "all" : String(budget),
      `${selector}${isOver ? " *" : ""}`,
      String(keys),
      readBytes.toLocaleString("en-US", { maximumFractionDigits: 0 }),
      loss.toFixed(4),
      selector === "dense" ? "" : `${signed(toDense.estimate)}${half(toDense)}`,
      ...hasAnswers
        ? [row.accuracy, row.goldRecall].map((share) => share === null ? "" : percent(share))
        : [],
    ]),
  ]) + "\n\nto dense: a token, mean over sequences, 95 % interval, paired by sequence" +
    (rows.some(({ isOver }) => isOver)
      ? "; *: reads all keys to choose, more than the others"
      : "");
}

type Index = NonNullable<EvaluationReport["index"]>;

function indexTable({ mean, layers }: Index): string {
  const cell = (value: unknown) => typeof value === "number" ? value.toFixed(4) : "";
  return textTable([
    ["indexer", "mean", ...layers.map((_, i) => `layer ${i}`)],
    ...Object.entries(mean).map(([name, value]) => [
      name,
      cell(value),
      ...layers.map((layer) => cell(layer[name])),
    ]),
  ]);
}

function distanceTable(layers: Index["layers"]): string {
  const bins = layers[0].distance.map((_, bin) => ({
    from: bin === 0 ? 0 : 2 ** (bin - 1),
    to: 2 ** bin,
  }));
  return textTable([
    ["selected at distance", ...layers.map((_, i) => `layer ${i}`)],
    ...bins.map((bin, b) => [range(bin), ...layers.map(({ distance }) => percent(distance[b]))]),
  ]);
}

/** Whole numbers from `from` up to, but not including, `to`. */
function range({ from, to }: { from: number; to: number }): string {
  return to - from === 1 ? String(from) : `${from}-${to - 1}`;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
