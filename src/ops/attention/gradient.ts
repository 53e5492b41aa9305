/**
 * Recording the backward pass of {@linkcode attention} and {@linkcode mlaAttention}: by passes that
 * compute the weights of attention again, or by products with weights that are kept.
 *
 * @module
 */
import { addInto } from "../../kernels/token/add.ts";
import {
  attentionDelta,
  attentionPass,
  type AttentionSpec,
  type Named,
  planAttention,
  sumHeads,
} from "../../kernels/attention/attention.ts";
import { buffersOf } from "../../kernels/attention/heads.ts";
import { BLOCK, blockRows } from "../../kernels/attention/blocks.ts";
import { attentionSum, SUMS } from "../../kernels/attention/sums.ts";
import { KEPT_TILE, planKept } from "../../kernels/attention/tuning.ts";
import { attentionWeights } from "../../kernels/attention/weights.ts";
import { mapValues } from "../../kernels/wgsl/operand.ts";
import type { AttentionOutputs } from "./passes.ts";
import { recordSelection, type SelectedKeys, selectedRows } from "./selection.ts";
import { byBatch } from "../by_batch.ts";
import type { GradientSink, Matrix, OpGradients, Recorder } from "../op.ts";
import { byRowsWithSink } from "../sink.ts";

/** What the gradients of attention are made from, and where they go. */
export interface AttentionGradient {
  /** By the names of `src/kernels/attention/attention.ts`, without those of a selection. */
  readonly inputs: Named<Matrix>;
  readonly outputs: AttentionOutputs;
  /** The gradient of `o`. */
  readonly gradO: Matrix;
  /** By the name of the input; null where nobody wants it. */
  readonly sinks: Readonly<Record<string, GradientSink | null>>;
  readonly selected?: SelectedKeys;
}

/** What the kernels of a backward pass read and write. */
interface Backward {
  readonly r: Recorder;
  readonly whole: AttentionSpec;
  readonly inputs: Named<Matrix>;
  readonly selected: SelectedKeys | undefined;
  readonly saved: { readonly grad_o: Matrix; readonly lse: Matrix; readonly delta: Matrix };
  /** By the names of the gradients, in place or not added to; null if nobody wants it. */
  readonly gradQ: Readonly<Record<string, GradientSink>> | null;
  /** Of keys and values; that of a shared key is for its heads' shares. */
  readonly gradKv: Readonly<Record<string, GradientSink>> | null;
}

/** Sinks of the inputs of an op that somebody wants the gradients of, by name. */
export function wantedSinks(
  g: OpGradients,
  names: readonly string[],
): Record<string, GradientSink | null> {
  return Object.fromEntries(names.map((name, i) => [name, g.wants(i) ? g.sink(i) : null]));
}

/** Records the kernels of the gradients of the wanted inputs. */
export function recordAttentionGradient(
  r: Recorder,
  whole: AttentionSpec,
  { inputs, outputs: { o, lse }, gradO, sinks, selected }: AttentionGradient,
): void {
  const { dims } = whole;
  const { q, ...kv } = inputs;
  const wantsKv = Object.keys(kv).some((name) => sinks[name]);
  if (!sinks.q && !wantsKv) return;
  const delta = r.temporary(o.rows, dims.heads);
  byBatch(r, whole, { rows: { o, gradO, delta } }, (spec, { rows: { o, gradO, delta } }) => {
    r.dispatch(attentionDelta(spec, o, gradO, delta));
  });
  const gradQ = sinks.q ? { grad_q: inPlaceSink(r, sinks.q, q) } : null;
  const own = Object.entries(wantsKv ? kv : {}).map(([name, m]) =>
    [`grad_${name}`, inPlaceSink(r, sinks[name], m)] as const
  );
  const shared = dims.rope > 0 ? own.find(([name]) => name === "grad_k_pe")?.[1] : undefined;
  const shares = shared && r.temporary(o.rows, dims.kvHeads * dims.rope);
  const gradKv: Record<string, GradientSink> | null = wantsKv
    ? { ...Object.fromEntries(own), ...shares ? { grad_k_pe: { into: shares, add: null } } : {} }
    : null;
  const saved = { grad_o: gradO, lse, delta };
  const backward = { r, whole, inputs, selected, saved, gradQ, gradKv };
  if (!recordKept(backward)) recordPasses(backward);
  if (shared && shares) {
    byRowsWithSink(r, [shares], shared, ([shares], sink) => r.dispatch(sumHeads(shares, sink)));
  }
}

/** Where the gradient of an input goes: added in place or not at all. */
function inPlaceSink(r: Recorder, sink: GradientSink | null, { rows, cols }: Matrix): GradientSink {
  if (!sink) return { into: r.temporary(rows, cols), add: null };
  const { into, add } = sink;
  if (add === null || add === into) return sink;
  r.byRows([add, into], (a, into) => r.dispatch(addInto({ a, into, add: null })));
  return { into, add: into };
}

/** Records a pass for the queries and one for keys and values. */
function recordPasses({ r, whole, inputs, selected, saved, gradQ, gradKv }: Backward): void {
  const run = (pass: "gradQ" | "gradKv", sinks: Readonly<Record<string, GradientSink>>) => {
    const grads = mapValues(sinks, ({ into }) => into);
    const rows = { inputs, saved, grads, chosen: selectedRows(pass, whole, selected) };
    byBatch(r, whole, rows, (spec, { inputs, saved, grads, chosen }) => {
      const read = { ...inputs, ...recordSelection(r, pass, spec, chosen), ...saved };
      const written = mapValues(grads, (into, name) => ({ into, add: sinks[name].add && into }));
      const plan = planAttention(pass, spec, r.capabilities);
      r.dispatch(attentionPass(pass, spec, plan, { read, written }));
    });
  };
  if (gradQ) run("gradQ", gradQ);
  if (gradKv) run("gradKv", gradKv);
}

/** Records products with kept weights, if that is how this runs best. */
function recordKept({ r, whole, inputs, selected, saved, gradQ, gradKv }: Backward): boolean {
  if (!gradQ || !gradKv || planKept(whole, r.capabilities) === null) return false;
  const { dims } = whole;
  const sinks: Readonly<Record<string, GradientSink>> = { ...gradQ, ...gradKv };
  const grads = mapValues(sinks, ({ into }) => into);
  const masks: Named<Matrix> = selected ? { mask: selected.mask } : {};
  byBatch(r, whole, { inputs, saved, grads, masks }, (spec, { inputs, saved, grads, masks }) => {
    // Not null: fewer sequences need no more room.
    const heads = planKept(spec, r.capabilities)!;
    const rows = heads[0].count * dims.heads / dims.kvHeads * blockRows(spec.extent);
    const weights = r.temporary(rows, BLOCK);
    const gradients = r.temporary(rows, BLOCK);
    const given: Named<Matrix> = { ...inputs, ...saved };
    const written = mapValues(grads, (into, name) => ({ into, add: sinks[name].add && into }));
    const named = <T>(tensor: string, of: Readonly<Record<string, T>>) =>
      Object.fromEntries(buffersOf(tensor, dims).map((name) => [name, of[name]]));
    for (const units of heads) {
      const operands = { read: { ...given, ...masks }, weights, gradients };
      r.dispatch(attentionWeights(spec, KEPT_TILE, units, operands));
      for (const sum of Object.values(SUMS)) {
        r.dispatch(attentionSum(sum, spec, units, {
          weights: sum === SUMS.gradV ? weights : gradients,
          read: named(sum.of, given),
          written: named(sum.into, written),
        }));
      }
    }
  });
  return true;
}
