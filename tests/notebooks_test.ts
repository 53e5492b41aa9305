/**
 * Runs the notebooks on Deno's Jupyter kernel. They lie in a folder of links to the repository, so
 * that the runs they start stay there, and use a kernel and settings of their own.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { heatMap, lineChart, type NotebookOutput } from "../src/report/page/notebook_figure.ts";

const ROOT = new URL("../", import.meta.url).pathname;
const NOTEBOOKS = ["01_quickstart.ipynb", "02_read_an_ablation.ipynb"];
/** So that saved notebooks stay readable on GitHub and in diffs. */
const MAX_BYTES = 300_000;
const PACKAGES = "python3-nbclient jupyter-client jupyter-nbconvert";

interface Cell {
  readonly cell_type: string;
  readonly source: readonly string[] | string;
  readonly execution_count: number | null;
  readonly outputs: readonly { output_type: string; data?: Record<string, unknown> }[];
}

async function run(command: string, args: string[], env: Record<string, string> = {}) {
  try {
    const { code, stdout, stderr } = await new Deno.Command(command, {
      ...{ args, env, stdin: "null", stdout: "piped", stderr: "piped" },
    }).output();
    const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
    return { code, text };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return { code: 127, text: `${command}: not found` };
    throw error;
  }
}

const hasJupyter = async () => (await run("jupyter", ["nbconvert", "--version"])).code === 0;

async function requireJupyter(): Promise<void> {
  if (await hasJupyter()) return;
  const command = `apt-get update && apt-get install -y --no-install-recommends ${PACKAGES}`;
  if (Deno.build.os === "linux" && Deno.uid() === 0) {
    console.log(`no Jupyter: installing Debian's ${PACKAGES}`);
    await run("sh", ["-c", command], { DEBIAN_FRONTEND: "noninteractive" });
    if (await hasJupyter()) return;
  }
  throw new Error(`Cannot run notebooks without Jupyter; install it, e.g. as root: ${command}`);
}

/** The environment of a Jupyter that knows this Deno as its only `deno` kernel. */
async function jupyterIn(folder: string): Promise<Record<string, string>> {
  const kernel = join(folder, "data/kernels/deno");
  await Deno.mkdir(kernel, { recursive: true });
  const spec = {
    argv: [Deno.execPath(), "jupyter", "--kernel", "--conn", "{connection_file}"],
    display_name: "Deno",
    language: "typescript",
  };
  await Deno.writeTextFile(join(kernel, "kernel.json"), JSON.stringify(spec));
  return {
    JUPYTER_DATA_DIR: join(folder, "data"),
    JUPYTER_CONFIG_DIR: join(folder, "config"),
    JUPYTER_RUNTIME_DIR: join(folder, "runtime"),
    JUPYTER_PATH: "",
    IPYTHONDIR: join(folder, "ipython"),
  };
}

async function readCells(path: string): Promise<Cell[]> {
  const { cells } = JSON.parse(await Deno.readTextFile(path));
  return cells.filter(({ cell_type }: Cell) => cell_type === "code");
}

function countOutputs(cells: readonly Cell[]): number {
  return cells.reduce((sum, { outputs }) => sum + outputs.length, 0);
}

Deno.test("notebooks run from top to bottom on the Deno kernel", async (t) => {
  await requireJupyter();
  const folder = await Deno.makeTempDir({ prefix: "latentk_notebooks_" });
  try {
    const env = await jupyterIn(folder);
    for (const name of ["mod.ts", "deno.json", "src", "experiments"]) {
      await Deno.symlink(join(ROOT, name), join(folder, name));
    }
    await Deno.copyFile(join(ROOT, "deno.lock"), join(folder, "deno.lock"));
    await Deno.mkdir(join(folder, "notebooks"));
    const convert = async (name: string) => {
      const path = join(folder, "notebooks", name);
      const args = ["nbconvert", "--to", "notebook", "--execute", "--inplace", path];
      return { ...await run("jupyter", args, env), path };
    };

    await t.step("a cell that throws is noticed", async () => {
      const broken = {
        cells: [{
          ...{ cell_type: "code", id: "broken", metadata: {}, execution_count: null, outputs: [] },
          source: 'throw new Error("on purpose")',
        }],
        metadata: { kernelspec: { name: "deno", display_name: "Deno", language: "typescript" } },
        ...{ nbformat: 4, nbformat_minor: 5 },
      };
      await Deno.writeTextFile(join(folder, "notebooks/broken.ipynb"), JSON.stringify(broken));
      const { code, text } = await convert("broken.ipynb");
      assert.notEqual(code, 0);
      assert.match(text, /on purpose/);
    });

    for (const name of NOTEBOOKS) {
      await t.step(name, async () => {
        const saved = join(ROOT, "notebooks", name);
        const want = await readCells(saved);
        let cells: Cell[] = [];
        let text = "";
        // Deno's kernel may send a cell's output after the cell's end, where nobody listens.
        for (let attempt = 0; attempt < 3 && countOutputs(cells) < countOutputs(want); attempt++) {
          await Deno.copyFile(saved, join(folder, "notebooks", name));
          const done = await convert(name);
          text = done.text;
          assert.equal(done.code, 0, text);
          cells = await readCells(done.path);
        }
        assert(cells.every(({ execution_count }) => execution_count !== null), text);
        const source = cells.flatMap(({ source }) => source).join("");
        const modules = [...source.matchAll(/(?:from|import) ?\(?"([.\w@:/-]+)"/g)];
        assert.deepEqual(modules.map(([, name]) => name), ["../mod.ts"], "what programs import");
        const types = (all: readonly Cell[]) =>
          all.map(({ outputs }) => outputs.flatMap(({ data }) => Object.keys(data ?? {})));
        assert(types(cells).flat().includes("image/svg+xml"), "it draws no figure");
        // What is committed shows the same kinds of output, cell by cell.
        assert.deepEqual(types(cells), types(want), `${name}: save it again`);
        assert((await Deno.stat(saved)).size < MAX_BYTES, `${name} is too large`);
      });
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

const svgOf = (output: NotebookOutput) => output[Symbol.for("Jupyter.display")]()["image/svg+xml"];

Deno.test("notebook figures place every value, and leave out what is not finite", () => {
  const flat = svgOf(lineChart({
    ...{ title: "a < b & c", x: "step", y: "nats" },
    lines: [{ name: "one", points: [[5, 2]] }, { name: "gap", points: [[1, NaN]] }],
  }));
  assert.doesNotMatch(flat, /NaN|Infinity|undefined/);
  assert.match(flat, /a &lt; b &amp; c/);
  // Steps 0 to 10 lie on 64 to 530 from left to right, 0 to 1 on 274 to 38 upwards.
  const points = [[0, 0], [5, 0.5], [10, 1]] as const;
  const line = svgOf(lineChart({ title: "", x: "", y: "", lines: [{ name: "", points }] }));
  assert.match(line, /M64 274L297 156L530 38"/);

  const axes = { ...{ title: "", x: "", y: "" }, rows: ["a", "b"], cols: ["c", "d"] };
  const map = svgOf(heatMap({ ...axes, values: [[1, 1], [NaN, 1]], digits: 1 }));
  assert.equal(map.match(/>1\.0</g)?.length, 3);
  assert.doesNotMatch(map, /NaN|undefined/);
  assert.throws(() => heatMap({ ...axes, values: [[1, 2]], digits: 1 }), RangeError);
  assert.throws(() => lineChart({ title: "", x: "", y: "", lines: [] }), RangeError);
});
