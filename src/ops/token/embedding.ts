import {
  embeddingGradient,
  embeddingGradientTokens,
  embeddingKernel as kernel,
} from "../../kernels/token/embedding.ts";
import { rowsOf } from "../matrix.ts";
import { matrixType, type Op, requireShapes, type Tensor } from "../op.ts";
import { byRowsWithSink, furtherSink } from "../sink.ts";

/** Rows of a table by number; see {@linkcode embedding}. */
export const embeddingOp: Op<null> = {
  name: "embedding",
  types(inputs) {
    const [ids, table] = inputs;
    requireShapes(
      inputs.length === 2 && ids.dtype === "i32" && ids.cols === 1,
      "embedding",
      inputs,
      "i32 ids [rows, 1] and a table [vocabulary, cols]",
    );
    return [matrixType(ids.rows, table.cols)];
  },
  twin(tf, [ids, table]) {
    return [tf.gather(table, tf.reshape(ids, [ids.shape[0]]))];
  },
  forward(r, [ids, table], [y]) {
    r.byRows([ids, y], (ids, y) => {
      let firstRow = 0;
      r.byRows([table], (table) => {
        r.dispatch(kernel({ ids, table, y, firstRow }));
        firstRow += table.rows;
      });
    });
  },
  backward(r, g, [ids]) {
    if (!g.wants(1)) return;
    const { software } = r.capabilities;
    const sink = g.sink(1);
    let target = sink;
    r.byRows([ids, g.gradient(0)], (allIds, allDy) => {
      const most = embeddingGradientTokens(allDy, sink, software);
      for (let first = 0; first < allDy.rows; first += most) {
        const tokens = Math.min(most, allDy.rows - first);
        const [ids, dy] = [allIds, allDy].map((m) => rowsOf(m, first, tokens));
        let firstRow = 0;
        byRowsWithSink(r, [], target, (_, dTable) => {
          r.dispatch(embeddingGradient({ ids, dy, dTable, firstRow, software }));
          firstRow += dTable.into.rows;
        });
        target = furtherSink(sink);
      }
    });
  },
};

/**
 * Row `ids[n]` of the table for each n: token embeddings, learned positions.
 *
 * @param ids i32 [rows, 1], each in 0 … vocabulary − 1
 * @param table [vocabulary, cols]
 * @returns [rows, cols]
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { embedding } from "./embedding.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const table = backend.tensor([1, 2, 3, 4, 5, 6], 3, 2);
 * const ids = backend.tensor([2, 0], 2, 1, "i32");
 * assert.deepEqual([...backend.read(embedding(ids, table))], [5, 6, 1, 2]);
 * ```
 */
export function embedding(ids: Tensor, table: Tensor): Tensor {
  return table.backend.apply(embeddingOp, [ids, table], null)[0];
}
