import assert from "node:assert/strict";
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
  return Array.from({ length: full.steps + 1 }, (_, step) => learningRate(full, step));
}

Deno.test("all schedules warm up linearly and reach lr", () => {
  for (const schedule of ["constant", "cosine", "wsd"] as const) {
    const rate = rates({ schedule });
    for (let step = 0; step < 10; step++) assert.equal(rate[step], 2 * (step + 1) / 10);
    assert.equal(rate[10], 2, schedule);
    assert.equal(rates({ schedule, warmupSteps: 0 })[0], 2, schedule);
  }
});

Deno.test("constant stays", () => {
  assert(rates({}).slice(9).every((rate) => rate === 2));
});

Deno.test("cosine falls from lr to minLr * lr, half of it at half time", () => {
  const rate = rates({ schedule: "cosine" });
  for (let step = 11; step <= 100; step++) assert(rate[step] < rate[step - 1]);
  assert(Math.abs(rate[55] - (2 + 0.5) / 2) < 1e-12);
  assert(Math.abs(rate[100] - 0.5) < 1e-12);
  assert(Math.abs(rate[25] - (0.5 + 1.5 * (1 + Math.cos(Math.PI / 6)) / 2)) < 1e-12);
});

Deno.test("wsd stays, then falls linearly to minLr * lr", () => {
  const rate = rates({ schedule: "wsd" });
  assert(rate.slice(10, 81).every((r) => r === 2));
  for (let step = 81; step <= 100; step++) {
    assert(Math.abs(rate[step - 1] - rate[step] - 1.5 / 20) < 1e-12);
  }
  assert(Math.abs(rate[100] - 0.5) < 1e-12);
});

Deno.test("steps past the end, and parts of no length, give finite rates", () => {
  for (const schedule of ["constant", "cosine", "wsd"] as const) {
    const config = { ...base, schedule };
    assert.equal(learningRate(config, 500), learningRate(config, 100));
    const short = { ...config, steps: 10, decaySteps: 0 };
    for (let step = 0; step < 12; step++) assert(Number.isFinite(learningRate(short, step)));
  }
});
