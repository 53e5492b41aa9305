/** The kernels of the indexer's gradients stay within a device's workgroup memory. */
import assert from "node:assert/strict";
import { indexGradientK, indexGradientQ, readsSigns } from "../../src/kernels/indexer/gradient.ts";
import type { Indexer } from "../../src/kernels/indexer/indexer.ts";
import { SIGN_WORDS, signRows } from "../../src/kernels/indexer/signs.ts";
import type { Kernel } from "../../src/kernels/wgsl/kernel.ts";
import { layout } from "../run_kernel.ts";

/** Bytes of the arrays of arrays of `vec4f` that a kernel has in workgroup memory. */
function workgroupBytes({ code }: Kernel): number {
  const declared = [...code.matchAll(/^var<workgroup> (.*);$/gm)];
  return declared.reduce((sum, [, declaration]) => {
    const sizes = /array<array<vec4f, (\d+)>, (\d+)>$/.exec(declaration);
    assert.ok(sizes, declaration);
    return sum + 16 * Number(sizes[1]) * Number(sizes[2]);
  }, 0);
}

Deno.test("the indexer's gradients take no more workgroup memory than there is", () => {
  const taken = new Map<number, number>();
  for (const room of [8_192, 16_384, 18_000, 20_000, 32_768]) {
    for (const dim of [8, 32, 64, 96, 128, 160]) {
      const capabilities = {
        ...{ software: false, maxBindingBytes: 2 ** 27, workgroupBytes: room },
        ...{ maxInvocations: 256, subgroups: null },
      };
      const [heads, tokens] = [2, 256];
      const indexer: Indexer = { heads, dim, activation: "relu", scale: 1 };
      const common = { indexer, capabilities };
      const signs = readsSigns(common)
        ? { signs: layout(signRows(tokens, tokens, heads), SIGN_WORDS) }
        : {};
      const [q, k, w] = [heads * dim, dim, heads].map((cols) => layout(tokens, cols));
      const spec = {
        ...common,
        q,
        k,
        w,
        gradScores: layout(tokens, tokens),
        firstRow: 0,
        ...signs,
      };
      for (const kernel of [indexGradientQ(spec, q, w), indexGradientK(spec, q, false)]) {
        const bytes = workgroupBytes(kernel);
        assert.ok(bytes <= room, `width ${dim} takes ${bytes} of ${room} bytes`);
        if (bytes > 0) taken.set(dim, bytes);
      }
    }
  }
  // Heads of usual widths do run by tiles where there is room.
  assert.deepEqual([...taken.keys()].sort((a, b) => a - b), [8, 32, 64, 96, 128]);
});
