/** Damaged `metrics.jsonl`. */
import { join } from "node:path";
import { Rng } from "../../src/rng.ts";
import { readMetrics } from "../../src/runs/run_folder.ts";
import { type Findings, type Fuzzer, unclean } from "./fuzzer.ts";
import { mutateBytes } from "./mutate.ts";

export const metricsFuzzer: Fuzzer = { name: "metrics", run };

async function run({ seed, until }: Parameters<Fuzzer["run"]>[0]): Promise<Findings> {
  const rng = new Rng(seed, "metrics");
  const folder = await Deno.makeTempDir();
  const path = join(folder, "metrics.jsonl");
  const rows = [1, 2, 3].map((step) => JSON.stringify({ step, t: step / 8, "train/loss": 2.5 }));
  const text = new TextEncoder().encode(rows.join("\n") + "\n");
  const findings: Findings = { cases: 0, failures: [] };
  let cases = 0;
  for (; !until(); cases++) {
    const bytes = mutateBytes(rng, text);
    Deno.writeFileSync(path, bytes);
    const error = await unclean(() => readMetrics(path).map(({ step, t }) => [step, t]));
    if (error) findings.failures.push({ input: new TextDecoder().decode(bytes), error });
  }
  await Deno.remove(folder, { recursive: true });
  return { ...findings, cases };
}
