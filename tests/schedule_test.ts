import assert from "node:assert/strict";
import { resolveConfig } from "../src/config/config.ts";
import { rateNote, resumeConfig } from "../src/train/resume.ts";
import { learningRate, type ScheduleConfig } from "../src/train/schedule.ts";

const base: ScheduleConfig = {
  schedule: "constant",
  lr: 2,
  minLr: 0.25,
  steps: 100,
  warmupSteps: 10,
  decaySteps: 20,
};

function rates(config: Partial<ScheduleConfig>): number[] {
  const full = { ...base, ...config };
  return Array.from({ length: full.steps }, (_, step) => learningRate(full, step));
}

Deno.test("all schedules warm up linearly and reach lr", () => {
  for (const schedule of ["constant", "cosine", "wsd"] as const) {
    const rate = rates({ schedule });
    for (let step = 0; step < 10; step++) assert.equal(rate[step], 2 * (step + 1) / 10);
    assert.equal(rate[9], 2, schedule);
    assert.equal(rates({ schedule, warmupSteps: 0 })[0], 2, schedule);
  }
});

Deno.test("constant stays", () => {
  assert(rates({}).slice(9).every((rate) => rate === 2));
});

Deno.test("cosine falls from lr at the end of the warm-up to minLr * lr in the last step", () => {
  const rate = rates({ schedule: "cosine" });
  for (let step = 10; step < 100; step++) assert(rate[step] < rate[step - 1]);
  assert.equal(rate[99], 0.5);
  assert(Math.abs(rate[54] - (2 + 0.5) / 2) < 1e-12);
  assert(Math.abs(rate[24] - (0.5 + 1.5 * (1 + Math.cos(Math.PI / 6)) / 2)) < 1e-12);
  const cold = rates({ schedule: "cosine", warmupSteps: 0 });
  assert.deepEqual([cold[0], cold[99]], [2, 0.5]);
});

Deno.test("wsd stays, then falls over decaySteps steps, the last of which has minLr * lr", () => {
  const rate = rates({ schedule: "wsd" });
  assert(rate.slice(9, 80).every((r) => r === 2));
  for (let step = 80; step < 100; step++) {
    assert(Math.abs(rate[step - 1] - rate[step] - 1.5 / 20) < 1e-12);
  }
  assert.equal(rate[99], 0.5);
  assert.equal(rate.filter((r, step) => step > 9 && r < 2).length, 20);
  assert(rates({ schedule: "wsd", decaySteps: 0 }).slice(9).every((r) => r === 2));
  assert.equal(rates({ schedule: "wsd", decaySteps: 1 }).at(-1), 0.5);
});

Deno.test("steps past the end, and parts of no length, give finite rates", () => {
  for (const schedule of ["constant", "cosine", "wsd"] as const) {
    const config = { ...base, schedule };
    assert.equal(learningRate(config, 500), learningRate(config, 99));
    const short = { ...config, steps: 10, decaySteps: 0 };
    for (let step = 0; step < 12; step++) assert(Number.isFinite(learningRate(short, step)));
  }
});

Deno.test("a single step has lr, and so has a run that is all warm-up in its last", () => {
  for (const schedule of ["constant", "cosine", "wsd"] as const) {
    const config = { ...base, schedule, steps: 1, warmupSteps: 0, decaySteps: 0 };
    assert.equal(learningRate(config, 0), 2);
    assert.equal(rates({ schedule, steps: 10, decaySteps: 0 }).at(-1), 2);
  }
});

Deno.test("a longer run says what becomes of the rate", () => {
  const saved = resolveConfig({ recipe: "dense", steps: 100, schedule: "cosine", lr: 1e-3 });
  const longer = (steps: number, from = saved) => resumeConfig(from, [`steps=${steps}`]);
  assert.equal(rateNote(saved, longer(100), 100), null);
  assert.match(rateNote(saved, longer(120), 40)!, /steps=120: /);
  assert.match(rateNote(saved, longer(400), 100)!, /steps=400: .* from 1\.00e-4 .* 8\.84e-4/);
  const constant = resolveConfig({ recipe: "dense", steps: 100, schedule: "constant" });
  assert.equal(rateNote(constant, longer(400, constant), 100), null);
});
