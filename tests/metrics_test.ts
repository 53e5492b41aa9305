import assert from "node:assert/strict";
import { isOfPart, layerMetric, layersOf, parseMetric } from "../src/metrics/names.ts";
import { describeMetric, isLessBetter, metricInfo } from "../src/metrics/table.ts";

Deno.test("names of metrics are put together and taken apart", () => {
  const name = layerMetric("index", 12, "distance/3");
  assert.deepEqual(parseMetric(name), { family: "index", layer: 12, key: "distance/3" });
  assert.deepEqual(parseMetric("grad/norm/backbone"), {
    ...{ family: "grad", layer: null, key: "norm/backbone" },
  });
  // A number that ends a name is a bin and no layer.
  assert.deepEqual(parseMetric("index/3"), { family: "index", layer: null, key: "3" });
  assert.deepEqual(parseMetric("stage"), { family: "stage", layer: null, key: "" });
  const names = ["index/10/kl", "index/2/kl", "latent/1/kl", "index/kl", "index/3/dense_kl"];
  assert.deepEqual(layersOf(names, "index", "kl"), [2, 10]);
  assert.deepEqual(
    ["val/loss", "index/2/kl", "k=16/index/2/kl", "latent/variance/0"].map(isOfPart),
    [false, true, true, true],
  );
});

Deno.test("the table knows metrics of layers, stages and evaluations, and which way is better", () => {
  for (const prefix of ["", "twin/", "k=16/"]) {
    assert.equal(metricInfo(`${prefix}val/accuracy`)?.better, "more");
    assert.equal(metricInfo(`${prefix}index/captured_mass`)?.unit, "share");
    assert.equal(metricInfo(`${prefix}index/3/captured_mass`)?.unit, "share");
    assert.equal(metricInfo(`${prefix}swap/oracle`)?.unit, "nats");
  }
  assert.equal(metricInfo("index/0/distance/4")?.better, null);
  assert.equal(metricInfo("captured_mass"), null);
  const less = ["val/loss", "val/accuracy", "index/2/score_recall", "never/heard/of"];
  assert.deepEqual(less.map(isLessBetter), [true, false, false, true]);
  assert.match(describeMetric("dense/val/bpb"), /bytes .* \(bits\/B\), less is better$/);
  assert.equal(describeMetric("never/heard/of"), "");
});
