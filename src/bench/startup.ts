/**
 * `deno task bench startup`: from the start of a process to its first finished training step.
 * Loading of modules, adapter, first weights, pipelines and the step itself count; a data set
 * does not.
 *
 * @module
 */
import { type Device, openDevice } from "../open_device.ts";
import { adapterOf, type BenchOptions, type BenchResult, summarizeTimes } from "./result.ts";
import { benchConfig, openBenchModel } from "./step.ts";

/** Starts processes that do one step of the first stage and say when it was finished. */
export async function* startupSuite(
  device: Device,
  { presets, runs, overrides }: BenchOptions,
): AsyncGenerator<BenchResult> {
  for (const preset of presets.length ? presets : ["nano", "tiny"]) {
    const samples: number[] = [];
    const args = [preset, `device=${device.gpu ? "webgpu" : "cpu"}`, ...overrides];
    for (let i = 0; i < runs; i++) samples.push(await startOnce(args));
    yield {
      suite: "startup",
      name: [preset, "first step", ...overrides].join(" "),
      adapter: adapterOf(device),
      ...summarizeTimes(samples),
    };
  }
}

/** Milliseconds since 1970, finer than `Date.now()`: the same clock in parent and child. */
function now(): number {
  return performance.timeOrigin + performance.now();
}

async function startOnce(args: readonly string[]): Promise<number> {
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", import.meta.url, ...args],
    stderr: "inherit",
  });
  const start = now();
  const { code, stdout } = await command.output();
  if (code !== 0) throw new Error(`The process that does one step ended with exit code ${code}`);
  return Number(new TextDecoder().decode(stdout)) - start;
}

if (import.meta.main) {
  const [preset, ...overrides] = Deno.args;
  const config = benchConfig(preset, overrides);
  using device = await openDevice(config.device);
  using model = await openBenchModel(device, config, config.stages[0].name);
  model.step();
  await model.engine.metrics();
  console.log(now());
}
