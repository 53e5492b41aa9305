/** Starts of lists, against a loop. */
import assert from "node:assert/strict";
import { scanStarts } from "../../src/kernels/select/lists.ts";
import { layout, runKernels } from "../run_kernel.ts";
import { testGpu } from "../check_op.ts";

/** Counts of a sequence: less than a round of the scan, a round, and some. */
for (const counts of [37, 2048, 5003]) {
  Deno.test(`scanStarts of ${counts} counts`, async () => {
    const rows = 2;
    const stride = counts + 4;
    const offset = 2;
    const before = Uint32Array.from({ length: offset + rows * stride }, () => Math.random() * 9);
    const wanted = before.slice();
    for (let row = 0; row < rows; row++) {
      let passed = 0;
      for (let i = 0; i <= counts; i++) {
        wanted[offset + row * stride + i] = passed;
        passed += before[offset + row * stride + i];
      }
    }
    const kernel = scanStarts(layout(rows, counts + 1, offset, stride));
    const { arrays: [got] } = await runKernels(await testGpu(), [before], [[kernel, 0]]);
    assert.deepEqual(new Uint32Array(got.buffer, got.byteOffset, got.length), wanted);
  });
}
