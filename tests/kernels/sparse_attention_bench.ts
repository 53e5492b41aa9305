/**
 * Times attention to selected keys, masked and gathered, against dense attention:
 *
 *     deno run -A tests/kernels/sparse_attention_bench.ts                 every shape
 *     deno run -A tests/kernels/sparse_attention_bench.ts long            one shape
 *     deno run -A tests/kernels/sparse_attention_bench.ts long tune       and other gathered kernels
 *
 * Selections are `random`, in which neighbouring queries share few keys, and `local`, half recent
 * keys and half keys that are popular with all queries, as trained indexers choose. Prints the
 * median ms of each pass, `prepare` for the blocks or lists that passes need, and the sum that a
 * training step pays; stars mark what `form: "auto"` takes.
 */
import {
  attentionPass,
  type AttentionPlan,
  type AttentionSpec,
  type Named,
  planAttention,
} from "../../src/kernels/attention/attention.ts";
import type { GatherShape } from "../../src/kernels/attention/lists.ts";
import { gathersByDefault, type PassName } from "../../src/kernels/attention/tuning.ts";
import type { Kernel } from "../../src/kernels/wgsl/kernel.ts";
import {
  countQueries,
  listQueries,
  maskWords,
  scanStarts,
  selectionBlocks,
  startsCols,
} from "../../src/kernels/select/lists.ts";
import {
  canListByRows,
  countQueriesByRows,
  listQueriesByRows,
} from "../../src/kernels/select/lists_by_rows.ts";
import { Gpu } from "../../src/webgpu/device/device.ts";
import type { Layout } from "../../src/kernels/wgsl/operand.ts";
import { type Call, layout, runKernels } from "../run_kernel.ts";

/** Batch, tokens, heads, selected keys, widths without and with position and of values. */
const SHAPES: Record<string, [number, number, number, number, number, number, number]> = {
  nano: [8, 128, 4, 16, 16, 8, 16],
  nano512: [2, 512, 4, 32, 16, 8, 16],
  nano2048: [1, 2048, 4, 64, 16, 8, 16],
  tiny: [16, 256, 4, 64, 32, 16, 32],
  small: [8, 1024, 6, 256, 64, 32, 64],
  base: [4, 2048, 12, 512, 64, 32, 64],
  long: [1, 8192, 8, 512, 64, 32, 64],
  long16k: [1, 16384, 8, 512, 64, 32, 64],
};

const PASSES = ["forward", "gradQ", "gradKv"] as const;

type Selection = "random" | "local";

/** `indices` and `mask` of a selection. */
function select(
  kind: Selection,
  batch: number,
  seqLen: number,
  topk: number,
): [Int32Array<ArrayBuffer>, Int32Array<ArrayBuffer>] {
  const words = maskWords(seqLen);
  const indices = new Int32Array(batch * seqLen * topk).fill(-1);
  const mask = new Int32Array(batch * seqLen * words);
  const popular = Array.from({ length: seqLen }, () => Math.random() < 1 / 4);
  for (let row = 0; row < batch * seqLen; row++) {
    const t = row % seqLen;
    const count = Math.min(topk, t + 1);
    const recent = kind === "local" ? Math.min(topk >> 1, t + 1) : 0;
    const keys = new Set(Array.from({ length: recent }, (_, i) => t - i));
    for (let tries = 0; keys.size < count; tries++) {
      const key = Math.floor(Math.random() * (t + 1));
      if (kind === "random" || popular[key] || tries > 8 * topk) keys.add(key);
    }
    [...keys].sort((a, b) => a - b).forEach((key, i) => {
      indices[row * topk + i] = key;
      mask[row * words + (key >> 5)] |= 1 << (key & 31);
    });
  }
  return [indices, mask];
}

/** Other shapes of a gathered kernel. */
function alternatives({ gather }: { gather: GatherShape }, pass: PassName): GatherShape[] {
  const team = gather.lanes * gather.slots;
  const changes: Partial<GatherShape>[] = [
    {},
    { shuffle: !gather.shuffle },
    { each: 1 },
    { each: 2 },
    { each: 4 },
    { lanes: gather.lanes / 2, slots: gather.slots * 2 },
    { lanes: gather.lanes * 2, slots: gather.slots / 2 },
    { slots: team / gather.lanes * 2 },
    ...pass === "gradKv"
      ? [{ slots: team / gather.lanes / 2 }, { slots: team / gather.lanes * 4 }]
      : [{ rows: 1 }, { rows: 2 }, { rows: 8 }],
  ];
  return changes.map((change) => ({ ...gather, ...change }));
}

async function bench(gpu: Gpu, name: string, kind: Selection, tune: boolean): Promise<void> {
  const [batch, seqLen, heads, topk, nope, rope, value] = SHAPES[name];
  const rows = batch * seqLen;
  const matrix = (cols: number, rowCount = rows) => layout(rowCount, cols);
  const [q, kv, kPe] = [heads * (nope + rope), heads * (nope + value), rope].map((n) => matrix(n));
  const [o, perHead, shares] = [heads * value, heads, heads * rope].map((n) => matrix(n));
  const words = maskWords(seqLen);
  const [indices, mask] = [matrix(topk), matrix(words)];
  const blocks = matrix(words, batch * words);
  const starts = matrix(startsCols(seqLen), batch);
  const random = ({ rows, cols }: { rows: number; cols: number }) =>
    Float32Array.from({ length: rows * cols }, () => Math.random() * 2 - 1);
  const empty = ({ rows, cols }: { rows: number; cols: number }) => new Float32Array(rows * cols);
  const lse = Float32Array.from(
    { length: rows * heads },
    (_, i) => Math.log(Math.min(topk, 1 + Math.floor(i / heads) % seqLen)),
  );
  const data = {
    q: random(q),
    kv: random(kv),
    kPe: random(kPe),
    gradO: random(o),
    lse,
    delta: random(perHead),
    indices: new Int32Array(),
    mask: new Int32Array(),
    blocks: empty(blocks),
    starts: empty(starts),
    next: empty(starts),
    queries: empty(indices),
    o: empty(o),
    newLse: empty(perHead),
    gradQ: empty(q),
    gradKv: empty(kv),
    shares: empty(shares),
  };
  [data.indices, data.mask] = select(kind, batch, seqLen, topk);
  type Name = keyof typeof data;
  /** Runs kernels on the arrays that they name, which keep their results. */
  const time = async (calls: [Kernel, ...Name[]][], repeat = 9): Promise<number> => {
    const names = [...new Set(calls.flatMap(([, ...used]) => used))];
    const run = calls.map(([kernel, ...used]): Call => [
      kernel,
      ...used.map((n) => names.indexOf(n)),
    ]);
    const { arrays, ms } = await runKernels(gpu, names.map((n) => data[n]), run, repeat);
    names.forEach((n, i) => {
      if (data[n] instanceof Float32Array) Object.assign(data, { [n]: arrays[i] });
    });
    return ms;
  };

  const dense: AttentionSpec = {
    dims: { heads, kvHeads: heads, nope, rope, value, packed: true },
    extent: { batch, seqLen },
    scale: (nope + rope) ** -0.5,
  };
  const auto = gathersByDefault(seqLen, topk) ? "gathered" : "masked";
  const prepare: Record<string, [Kernel, ...Name[]][]> = {
    masked: [[selectionBlocks(mask, blocks, seqLen), "mask", "blocks"]],
    gathered: gpu.capabilities.software && canListByRows(seqLen, topk)
      ? [
        [countQueriesByRows(indices, starts, seqLen), "indices", "starts"],
        [scanStarts(starts), "starts"],
        [
          listQueriesByRows(indices, starts, starts, indices, seqLen),
          "indices",
          "starts",
          "next",
          "queries",
        ],
      ]
      : [
        [countQueries(mask, starts, seqLen), "mask", "starts"],
        [scanStarts(starts), "starts"],
        [listQueries(mask, starts, indices, seqLen), "mask", "starts", "queries"],
      ],
  };
  const truth = new Map<PassName, Float32Array>();
  for (const form of ["dense", "masked", "gathered"] as const) {
    const spec = form === "dense" ? dense : { ...dense, selection: { form, topk } };
    const times: string[] = [];
    let sum = 0;
    if (form !== "dense") {
      const ms = await time(prepare[form]);
      times.push(`prepare ${ms.toFixed(3)}`);
      // All three passes look for blocks; only the last needs lists.
      sum += form === "masked" ? 3 * ms : ms;
    }
    for (const pass of PASSES) {
      const extra: Name[] = form === "dense"
        ? []
        : form === "masked"
        ? ["mask", "blocks"]
        : pass === "gradKv"
        ? ["starts", "queries"]
        : ["indices"];
      const layouts: Named = { mask, blocks, starts, queries: indices, indices };
      const chosen = Object.fromEntries(extra.map((n) => [n, layouts[n]]));
      const inputs = { q, kv, k_pe: kPe, ...chosen };
      const saved = { grad_o: o, lse: perHead, delta: perHead };
      const to = (into: Layout) => ({ into, add: null });
      const written = {
        forward: { o: to(o), lse: to(perHead) },
        gradQ: { grad_q: to(q) },
        gradKv: { grad_kv: to(kv), grad_k_pe: to(shares) },
      };
      const results: Record<PassName, Name[]> = {
        forward: ["o", "newLse"],
        gradQ: ["gradQ"],
        gradKv: ["gradKv", "shares"],
      };
      const call = (plan: AttentionPlan): [Kernel, ...Name[]] => {
        const read = pass === "forward" ? inputs : { ...inputs, ...saved };
        const given: Name[] = pass === "forward" ? [] : ["gradO", "lse", "delta"];
        const kernel = attentionPass(pass, spec, plan, { read, written: written[pass] });
        return [kernel, "q", "kv", "kPe", ...extra, ...given, ...results[pass]];
      };
      const result = pass === "forward" ? "o" : pass;
      const plan = planAttention(pass, spec, gpu.capabilities);
      const ms = await time([call(plan)]);
      sum += ms;
      times.push(`${pass} ${ms.toFixed(3)}`);
      if (form === "masked") truth.set(pass, data[result]);
      if (form !== "gathered") continue;
      const off = difference(data[result], truth.get(pass)!);
      if (!(off < 1e-4)) times.push(`DIFFERS by ${off.toExponential(1)}`);
      if (!tune || !("gather" in plan)) continue;
      for (const gather of alternatives(plan, pass)) {
        const ms = await time([call({ gather })]);
        const { lanes, slots, each, rows, shuffle } = gather;
        const shape = `lanes ${lanes} slots ${slots} each ${each} rows ${rows}`;
        const off = difference(data[result], truth.get(pass)!);
        console.log(
          `  ${pass} ${shape} ${shuffle ? "shuffle" : "memory"}`.padEnd(62),
          `${ms.toFixed(3)} ms`,
          off < 1e-4 ? "" : `DIFFERS by ${off.toExponential(1)}`,
        );
      }
    }
    console.log(
      `${name} k=${topk} ${kind}`.padEnd(24),
      `${form === auto ? "*" : " "} ${form}`.padEnd(11),
      `${sum.toFixed(3)} ms:`.padStart(12),
      times.join(", "),
    );
  }
}

/** Relative difference of two results. */
function difference(a: Float32Array, b: Float32Array): number {
  let error = 0;
  let norm = 0;
  for (let i = 0; i < a.length; i++) {
    error += (a[i] - b[i]) ** 2;
    norm += b[i] ** 2;
  }
  return Math.sqrt(error / norm);
}

using gpu = await Gpu.open();
if (!gpu) throw new Error("No WebGPU adapter");
console.log(gpu.name);
const [shape, tune] = Deno.args;
const all = Object.keys(SHAPES)
  .filter((name) => name.startsWith("nano") === gpu.capabilities.software);
for (const name of shape ? [shape] : all) {
  for (const kind of ["random", "local"] as const) await bench(gpu, name, kind, tune === "tune");
}
