/**
 * Stages: a run is a list of them, as data. The published recipe of DeepSeek Sparse Attention
 * (DeepSeek-V3.2 report, §2.1) is `dense → warmup → sparse`: a dense model, then an indexer that
 * learns dense attention's choices while all else is frozen, then both with top-k attention.
 *
 * @module
 */
import { type Stage, stageFields, type StageInput } from "./stage_fields.ts";
import type { RunConfig } from "./run_fields.ts";
import { UserError } from "../errors.ts";
import { isTask } from "./checks.ts";
import { parseCriterion } from "./criterion.ts";
import { checkValue, type Field } from "./fields.ts";
import { suggest } from "../text/suggest.ts";

/**
 * Named lists of stages; `dsa_twin` also goes on densely, on the tokens of the sparse stage, which
 * comes last: its model is the run's.
 */
export const recipes = {
  dense: [{ name: "dense" }],
  dsa: [{ name: "dense" }, { name: "warmup" }, { name: "sparse" }],
  dsa_twin: [
    { name: "dense" },
    { name: "warmup" },
    { name: "twin" },
    { name: "sparse", from: "warmup" },
  ],
  sparse: [{ name: "sparse" }],
} as const satisfies Record<string, readonly StageInput[]>;

/** Values of a stage that follow from its name and the run's own keys. */
function template(name: string, config: RunConfig): Partial<Stage> {
  const trained = config.indexKeyInput === "native" ? {} : {
    trains: "both",
    kl: config.indexLoss === "lm" ? "none" : "selected",
  } as const;
  const { steps, lr, minLr, indexerLr, indexTopk, schedule, warmupSteps, decaySteps } = config;
  const peak = { lr, minLr, schedule, warmupSteps, decaySteps, indexerLr, indexTopk };
  // What comes after the dense stage goes on at the learning rate that it ended with.
  const low = { ...peak, lr: schedule === "constant" ? lr : lr * minLr, minLr: 1 };
  const continued = { ...low, schedule: "constant", warmupSteps: 0, decaySteps: 0 } as const;
  switch (name) {
    case "warmup":
      return {
        ...continued,
        steps: Math.max(1, Math.round(steps / 5)),
        trains: "indexer",
        kl: "dense",
        schedule: "cosine",
        minLr: 0.1,
      };
    case "sparse":
      return {
        ...(config.recipe === "sparse" ? peak : continued),
        steps: config.recipe === "sparse" ? steps : Math.max(1, Math.round(steps / 5)),
        attention: "sparse",
        ...trained,
        optimizer: "keep",
      };
    case "twin":
      return {
        ...continued,
        steps: Math.max(1, Math.round(steps / 5)),
        from: "dense",
        optimizer: "keep",
      };
    default:
      return { ...peak, steps };
  }
}

/** What is given of how a stage is trained: its twin is trained in the same way. */
function trainingOf(stage: string, given: readonly StageInput[]): Partial<Stage> {
  const keys = ["steps", "lr", "minLr", "schedule", "warmupSteps", "decaySteps"];
  const entries = given.filter(({ name }) => name === stage).flatMap(Object.entries);
  return Object.fromEntries(entries.filter(([key]) => keys.includes(key)));
}

/**
 * The complete stages of a run.
 *
 * @param given stages of an experiment or a saved run; null takes those of `config.recipe`
 * @param typed single keys, which win
 * @throws {UserError} naming the key of the first value that cannot be
 */
export function resolveStages(
  config: RunConfig,
  given: readonly StageInput[] | null,
  typed: readonly StageInput[],
): Stage[] {
  const inputs: readonly StageInput[] = given ?? recipes[config.recipe];
  const names = inputs.map(({ name }) => name);
  for (const { name, ...keys } of typed) {
    if (names.includes(name)) continue;
    const near = suggest(name, names);
    throw new UserError(
      `Cannot set ${name}.${Object.keys(keys)[0]}: there is no stage "${name}"` +
        (near ? `, did you mean ${near}?` : `; this run has ${names.join(", ")}`),
    );
  }
  const defaults = Object.fromEntries(
    Object.entries(stageFields).map(([key, field]) => [key, field.default]),
  );
  const stages = inputs.map((input) => {
    const own = typed.filter(({ name }) => name === input.name);
    const rival = input.name === "twin" ? trainingOf("sparse", [...inputs, ...typed]) : {};
    const values = [defaults, template(input.name, config), rival, input, ...own];
    const stage = Object.assign({}, ...values) as Stage;
    for (const [key, value] of Object.entries(stage)) {
      if (key !== "name") checkValue(`${stage.name}.${key}`, stageField(stage.name, key), value);
    }
    return stage;
  });
  const hasTeacher = config.indexKeyInput !== "native" && config.indexLoss !== "lm";
  const needed = hasTeacher ? stages : withoutTeaching(stages, config);
  needed.forEach((stage, i) => {
    checkStage(stage, needed.slice(0, i).map(({ name }) => name), config);
  });
  checkPairing(needed);
  return needed;
}

/**
 * Stages without those that train an indexer alone: a model without indexer, or one whose indexer
 * learns from the model's own loss, has nothing to learn in them. What came after such a stage starts
 * where it started.
 */
function withoutTeaching(stages: readonly Stage[], config: RunConfig): Stage[] {
  const starts = new Map<string | undefined, string | null>();
  const kept: Stage[] = [];
  for (const [i, stage] of stages.entries()) {
    const before = kept.at(-1)?.name ?? null;
    const origin = stage.from ?? stages[i - 1]?.name;
    const start = starts.has(origin) ? starts.get(origin)! : stage.from;
    if (stage.trains === "indexer") starts.set(stage.name, start ?? before);
    else kept.push({ ...stage, from: stage.from === null && start === before ? null : start });
  }
  if (kept.length) return kept;
  const names = stages.map(({ name }) => name).join(", ");
  throw new UserError(
    config.indexKeyInput === "native"
      ? `Cannot train ${names} with indexKeyInput=native: there is no indexer to train; add other ` +
        "stages or use indexKeyInput=hidden"
      : `Cannot train ${names} with indexLoss=lm: without attention to what is selected an ` +
        "indexer learns nothing; add other stages or use indexLoss=both",
  );
}

/** The field of `name.key`. */
export function stageField(name: string, key: string): Field<unknown> {
  if (Object.hasOwn(stageFields, key)) return stageFields[key as keyof typeof stageFields];
  const near = suggest(key, Object.keys(stageFields));
  throw new UserError(
    `Cannot set ${name}.${key}: ` +
      (near
        ? `did you mean ${name}.${near}?`
        : `a stage has ${Object.keys(stageFields).join(", ")}`),
  );
}

function checkStage(stage: Stage, before: readonly string[], config: RunConfig): void {
  const { name, attention, trains, kl, from, steps, warmupSteps, until } = stage;
  const fail = (key: keyof Stage, reason: string): never => {
    throw new UserError(`Cannot set ${name}.${key}=${stage[key]}: ${reason}`);
  };
  if (until !== null) checkCriterion(stage, config, (reason) => fail("until", reason));
  if (before.includes(name)) fail("name", "two stages have this name; rename one");
  if (from !== null && !before.includes(from)) {
    fail(
      "from",
      before.length ? `earlier stages are ${before.join(", ")}` : "it is the first stage",
    );
  }
  if (warmupSteps > steps) fail("warmupSteps", `more than ${name}.steps=${steps}; lower it`);
  if (stage.schedule === "wsd" && warmupSteps + stage.decaySteps > steps) {
    fail("decaySteps", `with ${name}.warmupSteps=${warmupSteps} more than ${name}.steps=${steps}`);
  }
  if (isIndexed(stage) && config.attention !== "mla") {
    fail(attention === "sparse" ? "attention" : "kl", `only attention=mla has an indexer`);
  }
  if (config.indexKeyInput === "native" && (trains !== "backbone" || kl !== "none")) {
    const key = trains !== "backbone" ? "trains" : "kl";
    const way = key === "trains" ? "backbone" : "none";
    fail(key, `indexKeyInput=native has no indexer that could learn; use ${name}.${key}=${way}`);
  }
  if (config.indexLoss === "lm" && kl !== "none") {
    fail("kl", `indexLoss=lm has no teacher; use ${name}.kl=none or indexLoss=both`);
  }
  const learnsFromModel = config.indexLoss !== "kl" && attention === "sparse" && trains === "both";
  if (trains !== "backbone" && kl === "none" && !learnsFromModel) {
    fail("trains", `the indexer learns from ${name}.kl only; set it to dense or selected`);
  }
  if (kl === "selected" && attention === "dense") {
    fail("kl", `nothing is selected with ${name}.attention=dense; use dense`);
  }
}

/**
 * Stages that train the model on the same tokens, such as the sparse stage and its twin, come one
 * after the other and are compared: none may end when it likes.
 *
 * @throws {UserError} if one has a criterion
 */
function checkPairing(stages: readonly Stage[]): void {
  const spans = stageSpans(stages).filter(({ stage }) => stage.trains !== "indexer");
  for (const { stage: { name, until }, index, firstBatch } of spans) {
    const rival = spans.find((span) => span.firstBatch === firstBatch && span.index !== index);
    if (until === null || !rival) continue;
    throw new UserError(
      `Cannot set ${name}.until=${until}: ${name} and ${rival.stage.name} are compared after the ` +
        "same tokens, and a criterion may end one earlier; leave it out, or use recipe=dsa",
    );
  }
}

function checkCriterion(
  { until, attention, trains }: Stage,
  config: RunConfig,
  fail: (reason: string) => never,
): void {
  const { metric } = parseCriterion(until!);
  if (attention === "dense" && trains === "indexer") {
    fail(
      "dense attention is not changed by its indexer, so evaluations stay the same; leave it out",
    );
  }
  if (config.evalEvery === 0) {
    fail(
      "with evalEvery=0 nothing is evaluated before its end; set evalEvery, such as evalEvery=100",
    );
  }
  const isOfTasks = metric === "val/accuracy";
  if (metric !== "val/loss" && isOfTasks !== isTask(config.data)) {
    fail(
      `data=${config.data} has no ${metric}; use ${
        isOfTasks ? "val/loss or val/bpb" : "val/loss or val/accuracy"
      }`,
    );
  }
}

/** Whether a stage selects keys or teaches an indexer. */
export function isIndexed({ attention, kl }: Pick<Stage, "attention" | "kl">): boolean {
  return attention === "sparse" || kl !== "none";
}

/** Whether any stage selects keys or teaches an indexer. */
export function usesIndexer(config: Pick<RunConfig, "stages">): boolean {
  return config.stages.some(isIndexed);
}

/** Whether the model has weights of an indexer: any stage needs one, and it is not attention itself. */
export function hasIndexer(config: Pick<RunConfig, "stages" | "indexKeyInput">): boolean {
  return config.indexKeyInput !== "native" && usesIndexer(config);
}

/** Where a stage lies in the run. */
export interface StageSpan {
  /** The stage. */
  readonly stage: Stage;
  /** Its place in the list, from 0. */
  readonly index: number;
  /** Steps of the run before its first. */
  readonly start: number;
  /** Steps of the run after its last. */
  readonly end: number;
  /** The stage at whose end it starts; null for the first. */
  readonly before: StageSpan | null;
  /**
   * Index of the training batch of its first step: as many as the backbone has been trained on.
   * Whatever lies between, the same update of the backbone sees the same tokens: after warm-ups of
   * any length, which read ahead, and in a twin.
   */
  readonly firstBatch: number;
}

/** All stages with their places. */
export function stageSpans(stages: readonly Stage[]): StageSpan[] {
  const spans: StageSpan[] = [];
  let start = 0;
  stages.forEach((stage, index) => {
    const end = start + stage.steps;
    const named = spans.find((span) => span.stage.name === stage.from);
    const before = named ?? spans[index - 1] ?? null;
    const updates = before?.stage.trains === "indexer" ? 0 : before?.stage.steps ?? 0;
    const firstBatch = (before?.firstBatch ?? 0) + updates;
    spans.push({ stage, index, start, end, before, firstBatch });
    start = end;
  });
  return spans;
}

/** The stage in which step `step` of a run is the last one done; its last stage for later steps. */
export function stageAt(stages: readonly Stage[], step: number): Stage {
  const span = stageSpans(stages).find(({ end }) => step <= end);
  return span?.stage ?? stages[stages.length - 1];
}
