/**
 * How training went: losses, gradients, learning rates, time.
 *
 * @module
 */
import type { Block, Section } from "../page/figure.ts";
import { overSteps, type PlotLine } from "./plots.ts";
import { type ReportedRun, seriesOf } from "./run_data.ts";

/** Losses with the stages, and what drove them. */
export function trainingSection({ rows, spans, config }: ReportedRun): Section {
  const line = (metric: string, name: string, color: string, marks = false): PlotLine => ({
    ...seriesOf(rows, metric),
    ...{ name, color, marks },
  });
  const isTask = rows.some((row) => "val/accuracy" in row);
  const several = spans.length > 1 ? " Bands mark the stages." : "";
  const groups = ["backbone", "indexer"];
  const blocks: Block[] = [
    ...overSteps({
      id: "loss",
      title: "Loss",
      caption:
        "Nats a token of the training batch and of the validation text; lower is better, and a " +
        `gap between the two is overfitting.${several}`,
      height: 400,
    }, {
      lines: [line("train/loss", "training", "@0"), line("val/loss", "validation", "@1", true)],
      spans,
      y: "nats a token",
    }),
    ...(isTask
      ? overSteps({
        id: "accuracy",
        title: "Right answers",
        caption: "Share of the task's answers that are exactly right on validation examples.",
      }, { lines: [line("val/accuracy", "accuracy", "@2", true)], spans, y: "share" })
      : []),
    ...overSteps({
      id: "gradients",
      title: "Gradient norms",
      caption: `Before clipping${
        config.clip === null ? "" : ` at ${config.clip}`
      }, by group of parameters; spikes come before divergence.`,
      half: true,
    }, {
      lines: groups.map((group, i) => line(`grad/norm/${group}`, group, `@${i}`)),
      ...{ spans, y: "norm", isLog: true },
    }),
    ...overSteps({
      id: "rates",
      title: "Learning rates",
      caption: "Of each group that a stage trains, on a logarithmic axis; a frozen group has none.",
      half: true,
    }, {
      lines: groups.map((group, i) => line(`lr/${group}`, group, `@${i}`)),
      ...{ spans, y: "learning rate", isLog: true, tickFormat: "~e" },
    }),
  ];
  return { id: "training", title: "Training", blocks };
}
