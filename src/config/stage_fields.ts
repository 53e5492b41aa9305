/**
 * The keys of a stage: {@linkcode stageFields} is the only place that knows a key's type, default
 * and meaning.
 *
 * @module
 */
import { choice, integer, number, orNone, text, type ValuesOf } from "./fields.ts";

/** The keys of a stage, written `warmup.steps=200`. */
export const stageFields = {
  steps: integer("stage", 1, "updates of the weights", { derived: "a part of steps" }),
  attention: choice("stage", ["dense", "sparse"], "dense", "attention in the forward pass"),
  trains: choice("stage", ["backbone", "indexer", "both"], "backbone", "what is updated"),
  kl: choice(
    "stage",
    ["none", "dense", "selected"],
    "none",
    "keys that the indexer's loss is over: all, or those selected",
  ),
  from: orNone(text("stage", "", "stage at whose end it starts; none: the one before"), null),
  optimizer: choice("stage", ["keep", "reset"], "reset", "AdamW's moments at the stage's start"),
  lr: number("stage", 0, "learning rate of the backbone", { derived: "of the recipe" }),
  indexerLr: number("stage", 0, "learning rate of the indexer", { derived: "indexerLr" }),
  schedule: choice("stage", ["constant", "cosine", "wsd"], "constant", "of both learning rates"),
  warmupSteps: integer("stage", 0, "steps of linear warm-up", { min: 0 }),
  decaySteps: integer("stage", 0, "last steps, over which wsd decays", { min: 0 }),
  minLr: number("stage", 1, "last learning rate as a fraction", { max: 1 }),
  until: orNone(
    text("stage", "", "criterion that ends it at an evaluation, such as val/accuracy>=0.99"),
    null,
  ),
  indexTopk: integer("stage", 1, "latents that a query attends to", { derived: "indexTopk" }),
};

/** A stage with all its keys. */
export type Stage = { name: string } & ValuesOf<typeof stageFields>;

/** A stage as an experiment or the command line gives it: the rest follows from its name. */
export type StageInput = { name: string } & Partial<Stage>;
