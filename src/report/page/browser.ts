/**
 * Chromium without a window, through its DevTools protocol: to look at a report and to save its
 * figures as images.
 *
 * @module
 */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { UserError } from "../../errors.ts";

/** Names that Chromium and its kin have. */
const PROGRAMS = [
  "chromium",
  "chromium-browser",
  "google-chrome",
  "google-chrome-stable",
  "chrome",
];
/** Milliseconds that a page may take to draw all its figures. */
const PATIENCE_MS = 60_000;

type Message = Record<string, unknown>;

/** What a page did that it should not have done. */
export interface Complaint {
  readonly kind: "console" | "exception" | "request";
  readonly text: string;
}

/** A page in a browser of its own. */
export class Page implements AsyncDisposable {
  /** Errors and warnings on the console, exceptions, and requests for anything but the page. */
  readonly complaints: Complaint[] = [];
  readonly #process: Deno.ChildProcess;
  readonly #profile: string;
  readonly #socket: WebSocket;
  readonly #width: number;
  readonly #waiting = new Map<number, (message: Message) => void>();
  #session: string | undefined;
  #last = 0;

  private constructor(
    { process, profile, socket, width }: {
      process: Deno.ChildProcess;
      profile: string;
      socket: WebSocket;
      width: number;
    },
  ) {
    this.#process = process;
    this.#profile = profile;
    this.#socket = socket;
    this.#width = width;
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
  }

  /**
   * Opens a report and waits until it has drawn its figures.
   *
   * @param options `theme`: what the system prefers; `width` of the window in pixels
   * @throws {UserError} if there is no Chromium
   */
  static async open(
    path: string,
    options: { theme?: "light" | "dark"; width?: number } = {},
  ): Promise<Page> {
    const { theme = "light", width = 1200 } = options;
    const program = await findBrowser();
    if (!program) {
      throw new UserError(
        "Cannot find Chromium: install it, e.g. apt-get install chromium fonts-dejavu-core",
      );
    }
    const profile = await Deno.makeTempDir();
    const process = new Deno.Command(program, {
      args: [
        ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        ...["--no-first-run", "--disable-component-update", "--hide-scrollbars"],
        `--user-data-dir=${profile}`,
        "--remote-debugging-port=0",
        "about:blank",
      ],
      ...{ stdin: "null", stdout: "null", stderr: "piped" },
    }).spawn();
    const socket = new WebSocket(await devToolsUrl(process));
    await new Promise((done) => socket.onopen = done);
    const page = new Page({ process, profile, socket, width });
    const { targetInfos } = await page.#send("Target.getTargets") as {
      targetInfos: { targetId: string; type: string }[];
    };
    const { targetId } = targetInfos.find(({ type }) => type === "page")!;
    const attached = await page.#send("Target.attachToTarget", { targetId, flatten: true });
    page.#session = attached.sessionId as string;
    for (const domain of ["Page", "Runtime", "Log", "Network"]) {
      await page.#send(`${domain}.enable`);
    }
    await page.#send("Emulation.setDeviceMetricsOverride", {
      ...{ width, height: 1000, deviceScaleFactor: 1, mobile: false },
    });
    await page.#send("Emulation.setEmulatedMedia", {
      features: [{ name: "prefers-color-scheme", value: theme }],
    });
    await page.#send("Page.navigate", { url: pathToFileURL(resolve(path)).href });
    await page.evaluate(`new Promise((done, fail) => {
      const late = setTimeout(() => fail(new Error("not drawn in time")), ${PATIENCE_MS});
      const look = () => {
        if (!document.documentElement?.dataset.drawn) return setTimeout(look, 50);
        clearTimeout(late);
        done();
      };
      look();
    })`).catch((error) => page.complaints.push({ kind: "exception", text: error.message }));
    return page;
  }

  /**
   * The value of an expression, or of the promise it gives.
   *
   * @throws {Error} if it throws
   */
  async evaluate(expression: string): Promise<unknown> {
    const { result, exceptionDetails } = await this.#send("Runtime.evaluate", {
      ...{ expression, awaitPromise: true, returnByValue: true },
    }) as {
      result: { value?: unknown };
      exceptionDetails?: { text: string; exception?: { description?: string } };
    };
    if (exceptionDetails) {
      throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    }
    return result.value;
  }

  /** The page as a PNG, or `height` pixels of it from `y` on. */
  async screenshot(part?: { y: number; height: number }): Promise<Uint8Array<ArrayBuffer>> {
    const { data } = await this.#send("Page.captureScreenshot", {
      captureBeyondViewport: true,
      ...(part ? { clip: { x: 0, width: this.#width, scale: 1, ...part } } : {}),
    });
    return Uint8Array.fromBase64(data as string);
  }

  /** Ends the browser. */
  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((done) => this.#socket.onclose = done);
    await this.#send("Browser.close");
    await Promise.all([closed, this.#process.status]);
    await Deno.remove(this.#profile, { recursive: true });
  }

  #send(method: string, params: Message = {}): Promise<Message> {
    const id = ++this.#last;
    const isOfBrowser = method.startsWith("Target.") || method.startsWith("Browser.");
    const session = isOfBrowser ? {} : { sessionId: this.#session };
    this.#socket.send(JSON.stringify({ id, method, params, ...session }));
    return new Promise((done, fail) =>
      this.#waiting.set(
        id,
        ({ result, error }) =>
          error
            ? fail(new Error(`${method}: ${(error as { message: string }).message}`))
            : done(result as Message),
      )
    );
  }

  #receive(message: Message): void {
    if (typeof message.id === "number") {
      this.#waiting.get(message.id)?.(message);
      this.#waiting.delete(message.id);
      return;
    }
    const complaint = complaintOf(message.method as string, message.params as Message);
    if (complaint) this.complaints.push(complaint);
  }
}

/** The name of the browser that is installed, or null. */
export async function findBrowser(): Promise<string | null> {
  for (const program of PROGRAMS) {
    try {
      const { success } = await new Deno.Command(program, {
        ...{ args: ["--version"], stdin: "null", stdout: "null", stderr: "null" },
      }).output();
      if (success) return program;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return null;
}

/** Reads the address that Chromium prints when it listens, and goes on emptying its stderr. */
async function devToolsUrl(process: Deno.ChildProcess): Promise<string> {
  let text = "";
  const lines = process.stderr.pipeThrough(new TextDecoderStream()).getReader();
  while (true) {
    const { value, done } = await lines.read();
    if (done) throw new Error(`Chromium ended: ${text.trim()}`);
    text += value;
    const [, url] = text.match(/DevTools listening on (ws:\S+)/) ?? [];
    if (!url) continue;
    (async () => {
      while (!(await lines.read()).done);
    })();
    return url;
  }
}

function complaintOf(method: string, params: Message): Complaint | null {
  switch (method) {
    case "Runtime.consoleAPICalled": {
      const { type, args } = params as { type: string; args: { value?: unknown }[] };
      const text = args.map((arg) => String(arg.value ?? JSON.stringify(arg))).join(" ");
      return type === "error" || type === "warning" || type === "assert"
        ? { kind: "console", text }
        : null;
    }
    case "Runtime.exceptionThrown": {
      const { exceptionDetails: details } = params as {
        exceptionDetails: { text: string; exception?: { description?: string } };
      };
      return { kind: "exception", text: details.exception?.description ?? details.text };
    }
    case "Log.entryAdded": {
      const { entry } = params as { entry: { level: string; text: string } };
      return entry.level === "error" || entry.level === "warning"
        ? { kind: "console", text: entry.text }
        : null;
    }
    case "Network.requestWillBeSent": {
      const { request, type } = params as { request: { url: string }; type: string };
      const isPage = type === "Document" && request.url.startsWith("file:");
      return isPage || /^(data|blob):/.test(request.url)
        ? null
        : { kind: "request", text: request.url.slice(0, 200) };
    }
    default:
      return null;
  }
}
