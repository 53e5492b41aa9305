/**
 * `deno task bench kernels`: single kernels by GPU timestamps, beside the adapter's measured
 * ceilings of operations and bytes.
 *
 * @module
 */
import { UserError } from "../errors.ts";
import { adamwKernel } from "../kernels/step/adamw.ts";
import { crossEntropyKernel } from "../kernels/token/cross_entropy.ts";
import { indexScores } from "../kernels/indexer/scores.ts";
import { indexerKl } from "../kernels/indexer/kl.ts";
import { type Form, matmul } from "../kernels/product/matmul.ts";
import { rmsNormKernel } from "../kernels/token/rms_norm.ts";
import { topK } from "../kernels/select/top_k.ts";
import type { Device } from "../open_device.ts";
import type { Capabilities } from "../kernels/wgsl/device.ts";
import { attentionCases } from "./attention_cases.ts";
import { measureCeilings } from "./ceilings.ts";
import { gatheredLossCase } from "./gathered_loss.ts";
import { type Case, randomValues, single, type Sizes } from "./kernel_case.ts";
import { adapterOf, type BenchResult, rounded } from "./result.ts";
import { callOn, layout, runKernels } from "./run_kernels.ts";

/** Samples of a kernel. */
const SAMPLES = 9;

/** Sizes of `nano` for software adapters, of `base` for others. */
const SOFTWARE_SIZES: Sizes = {
  ...{ square: 512, batch: 8, seqLen: 128, hidden: 96, vocabulary: 256 },
  ...{ heads: 4, nope: 16, rope: 8, value: 16 },
  ...{ indexHeads: 2, indexDim: 12, topk: 32, parameters: 2 ** 19 },
};
const GPU_SIZES: Sizes = {
  ...{ square: 4096, batch: 4, seqLen: 2048, hidden: 768, vocabulary: 8192 },
  ...{ heads: 12, nope: 64, rope: 32, value: 64 },
  ...{ indexHeads: 16, indexDim: 64, topk: 512, parameters: 2 ** 24 },
};

/** Times every kernel of the list. */
export async function* kernelSuite(
  device: Device,
): AsyncGenerator<BenchResult> {
  const { gpu } = device;
  if (!gpu) throw new UserError("Cannot time kernels with device=cpu: it has none; use webgpu");
  if (!gpu.features.includes("timestamp-query")) {
    throw new UserError(`Cannot time kernels on ${gpu.name}: it has no timestamp queries`);
  }
  const sizes = gpu.capabilities.software ? SOFTWARE_SIZES : GPU_SIZES;
  const ceilings = await measureCeilings(gpu);
  for (const make of cases(sizes, gpu.capabilities)) {
    const { name, calls, arrays, ...own } = make();
    const { ms, minMs } = await runKernels(gpu, arrays, calls, SAMPLES);
    const sum = (of: "flops" | "bytes") =>
      own[of] ?? calls.reduce((total, [kernel]) => total + kernel[of], 0);
    const gflops = sum("flops") / ms / 1e6;
    const gbps = sum("bytes") / ms / 1e6;
    yield {
      ...{ suite: "kernels", name, adapter: adapterOf(device) },
      ...{ medianMs: rounded(ms), minMs: rounded(minMs) },
      ...{ gflops: rounded(gflops), gbps: rounded(gbps) },
      share: rounded(Math.max(gflops / ceilings.gflops, gbps / ceilings.gbps)),
    };
  }
}

/** The list; each is made only when its turn comes, for its memory. */
function cases(sizes: Sizes, capabilities: Capabilities): (() => Case)[] {
  return [
    ...(["nt", "nn", "tn"] as const).map((form) => () => matmulCase(form, sizes, capabilities)),
    ...attentionCases(sizes, capabilities),
    ...(["scores", "top-k", "KL"] as const).map((part) => () =>
      indexerCase(part, sizes, capabilities)
    ),
    () => gatheredLossCase(sizes, capabilities),
    ...rowCases(sizes, capabilities),
    () => adamwCase(sizes),
  ];
}

function matmulCase(form: Form, { square: n }: Sizes, capabilities: Capabilities): Case {
  const [a, b, into] = [layout(n, n), layout(n, n), layout(n, n)];
  const matrices = [a, b, into];
  const scratch = (rows: number, cols: number) => {
    const parts = layout(rows, cols);
    matrices.push(parts);
    return parts;
  };
  const kernels = matmul({ form, a, b, c: { into, add: null }, scratch, capabilities });
  const tile = kernels[0].variants?.names[0];
  return {
    name: `matmul_${form} ${n}x${n}x${n}${tile ? ` tile ${tile}` : ""}`,
    calls: kernels.map((kernel) => callOn(kernel, matrices)),
    arrays: matrices.map(randomValues),
    flops: 2 * n ** 3,
    bytes: 12 * n ** 2,
  };
}

function indexerCase(
  part: "scores" | "top-k" | "KL",
  { batch, seqLen, indexHeads: heads, indexDim: dim, topk }: Sizes,
  capabilities: Capabilities,
): Case {
  const rows = batch * seqLen;
  const scores = layout(rows, seqLen);
  const common = { firstRow: 0, batch, capabilities };
  if (part === "scores") {
    const [q, k, w] = [layout(rows, heads * dim), layout(rows, dim), layout(rows, heads)];
    const indexer = { heads, dim, activation: "relu" as const, scale: 0.1 };
    const kernel = indexScores({ q, k, w, scores, indexer, ...common });
    return single(kernel, [q, k, w, scores].map(randomValues));
  }
  if (part === "top-k") {
    const indices = layout(rows, topk);
    return single(topK({ scores, indices, ...common }), [scores, indices].map(randomValues));
  }
  const kl = layout(rows, 1);
  const kernel = indexerKl({
    ...{ scores, target: scores, mask: null, kl, firstRow: 0, batch },
    ...{ direction: "forward", gradient: 1, software: capabilities.software },
  });
  return single(kernel, [
    randomValues(scores),
    randomValues(scores).map(Math.abs),
    randomValues(kl),
  ]);
}

function rowCases(
  { batch, seqLen, hidden, vocabulary }: Sizes,
  { software }: Capabilities,
): (() => Case)[] {
  const rows = batch * seqLen;
  return [() => {
    const [x, w] = [layout(rows, hidden), layout(1, hidden)];
    return single(rmsNormKernel({ x, w, y: x, eps: 1e-6, software }), [x, w, x].map(randomValues));
  }, () => {
    const [logits, perRow] = [layout(rows, vocabulary), layout(rows, 1)];
    const kernel = crossEntropyKernel({
      logits,
      targets: perRow,
      nll: perRow,
      lse: perRow,
      software,
    });
    const targets = Int32Array.from({ length: rows }, (_, i) => i % vocabulary);
    return single(kernel, [
      randomValues(logits),
      targets,
      randomValues(perRow),
      randomValues(perRow),
    ]);
  }];
}

function adamwCase({ parameters }: Sizes): Case {
  const p = layout(1, parameters);
  const [norm, hyper] = [layout(1, 1), layout(1, 8)];
  const kernel = adamwKernel({ p, g: p, m: p, v: p, norm, hyper });
  // In the order of ADAMW_HYPER: the first step.
  const settings = Float32Array.of(1e-3, 0.1, 1, 0.9, 0.95, 1e-8, 10, 20);
  return single(kernel, [
    randomValues(p),
    randomValues(p),
    randomValues(p),
    randomValues(p).fill(0.1),
    randomValues(norm),
    settings,
  ]);
}
