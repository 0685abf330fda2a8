/** A headless Chromium by its DevTools protocol, for tests that have to see a page as it is laid out. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/** The browser of this machine; `HEADRACE_CHROMIUM` names another. */
export function findBrowser(): string | undefined {
  const named = process.env.HEADRACE_CHROMIUM;
  if (named !== undefined && named !== "") return named;
  return NAMES.map((name) => Bun.which(name)).find((path) => path !== null) ?? undefined;
}

/** How a page is looked at. */
export interface Look {
  readonly width: number;
  readonly height: number;
  readonly scheme: "light" | "dark";
}

/** One page of a browser of its own. */
export class Browser implements AsyncDisposable {
  readonly #child: Bun.Subprocess;
  readonly #folder: string;
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, PromiseWithResolvers<Record<string, unknown>>>();
  readonly #events = new Map<string, () => void>();
  #session: string | undefined;
  #sent = 0;

  private constructor(child: Bun.Subprocess, folder: string, socket: WebSocket) {
    this.#child = child;
    this.#folder = folder;
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(String(data)));
  }

  static async open(path: string): Promise<Browser> {
    const folder = mkdtempSync(join(tmpdir(), "headrace-browser-"));
    const flags = [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-dev-shm-usage",
      "--hide-scrollbars",
    ];
    const profile = [`--user-data-dir=${folder}`, "--remote-debugging-port=0", "about:blank"];
    const child = Bun.spawn([path, ...flags, ...profile], { stdout: "ignore", stderr: "pipe" });
    const socket = new WebSocket(await addressFrom(child.stderr));
    await new Promise((done, fail) => {
      socket.onopen = done;
      socket.onerror = fail;
    });
    const browser = new Browser(child, folder, socket);
    const { targetId } = await browser.#call("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await browser.#call("Target.attachToTarget", { targetId, flatten: true });
    browser.#session = sessionId as string;
    await browser.#call("Page.enable");
    return browser;
  }

  /** Shows the file at `path`, laid out as `look` says. */
  async show(path: string, { width, height, scheme }: Look): Promise<void> {
    await this.#call("Emulation.setDeviceMetricsOverride", {
      width,
      height,
      deviceScaleFactor: 1,
      mobile: width < 600,
    });
    await this.#call("Emulation.setEmulatedMedia", {
      features: [{ name: "prefers-color-scheme", value: scheme }],
    });
    const loaded = new Promise<void>((done) => this.#events.set("Page.loadEventFired", done));
    await this.#call("Page.navigate", { url: Bun.pathToFileURL(path).href });
    await loaded;
  }

  /** The value of an expression, as JSON has it. */
  async evaluate<T>(expression: string): Promise<T> {
    const answer = await this.#call("Runtime.evaluate", { expression, returnByValue: true });
    const { result, exceptionDetails } = answer as { result: { value: T }; exceptionDetails?: unknown };
    if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails));
    return result.value;
  }

  /** The page from `top` on as a PNG. */
  async picture(top: number, width: number, height: number): Promise<Uint8Array> {
    const clip = { x: 0, y: top, width, height, scale: 1 };
    const { data } = await this.#call("Page.captureScreenshot", { clip, captureBeyondViewport: true });
    return Buffer.from(data as string, "base64");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
    this.#child.kill("SIGKILL");
    await this.#child.exited;
    // Its helpers end a little later, and may still write.
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  }

  #call(method: string, params: object = {}): Promise<Record<string, unknown>> {
    const id = ++this.#sent;
    const answer = Promise.withResolvers<Record<string, unknown>>();
    this.#waiting.set(id, answer);
    this.#socket.send(JSON.stringify({ id, method, params, sessionId: this.#session }));
    return answer.promise;
  }

  #receive(message: {
    id?: number;
    method?: string;
    result?: Record<string, unknown>;
    error?: unknown;
  }): void {
    if (message.id === undefined) {
      this.#events.get(message.method ?? "")?.();
      return;
    }
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.error === undefined) waiting?.resolve(message.result ?? {});
    else waiting?.reject(new Error(JSON.stringify(message.error)));
  }
}

/** The address that a browser prints once it listens. */
async function addressFrom(stderr: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const bytes of stderr) {
    text += decoder.decode(bytes, { stream: true });
    const found = /ws:\/\/\S+/.exec(text);
    if (found !== null) return found[0];
  }
  throw new Error(`the browser ended: ${text}`);
}
