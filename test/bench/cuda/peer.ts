/** Processes that take their turns with ours: a line of JSON asks, a line of JSON answers. */
import { existsSync } from "node:fs";
import { join } from "node:path";

/** The first answer may have to wait for large libraries, the others for a slow peer. */
const START_TIMEOUT_MS = 120_000;
const ASK_TIMEOUT_MS = 45_000;

/** Why a peer cannot be asked: not a failure of ours. */
export class PeerMissing extends Error {}

/** A process that answers. Close it. */
export class Peer implements AsyncDisposable {
  /** What it said when it was ready. */
  readonly ready: Readonly<Record<string, unknown>>;
  readonly #child: Bun.Subprocess<"pipe", "pipe", "pipe">;
  readonly #lines: AsyncIterator<string>;

  private constructor(
    child: Bun.Subprocess<"pipe", "pipe", "pipe">,
    lines: AsyncIterator<string>,
    ready: Readonly<Record<string, unknown>>,
  ) {
    this.#child = child;
    this.#lines = lines;
    this.ready = ready;
  }

  /** Throws {@link PeerMissing} with the last line of what it said where it does not get ready. */
  static async start(command: readonly string[]): Promise<Peer> {
    const child = Bun.spawn([...command], { stdin: "pipe", stdout: "pipe", stderr: "pipe" });
    const errors = new Response(child.stderr).text();
    const lines = linesOf(child.stdout);
    const first = await within(START_TIMEOUT_MS, lines.next()).catch(() => undefined);
    if (first === undefined || first.done === true) {
      child.kill();
      const said = (await errors).trim().split("\n").at(-1);
      throw new PeerMissing(
        `${command.join(" ")}: ${said === "" || said === undefined ? "no answer" : said}`,
      );
    }
    return new Peer(child, lines, JSON.parse(first.value));
  }

  /** A peer in Python, for our device of that name: by the interpreter that HEADRACE_PEERS_PYTHON names, or
   * `python3`. What is not CUDA is the CPU to it. */
  static python(script: string, device: string): Promise<Peer> {
    const python = process.env.HEADRACE_PEERS_PYTHON ?? Bun.which("python3");
    if (python === null || (python.includes("/") && !existsSync(python))) {
      throw new PeerMissing(
        "there is no python3; HEADRACE_PEERS_PYTHON names one with torch and safetensors",
      );
    }
    return Peer.start([python, join(import.meta.dir, "peers", script), device === "cuda" ? device : "cpu"]);
  }

  /** Throws {@link PeerMissing} with the peer's own words where it fails, ends, or takes too long. */
  async ask<T>(command: Readonly<Record<string, unknown>>): Promise<T> {
    this.#child.stdin.write(`${JSON.stringify(command)}\n`);
    this.#child.stdin.flush();
    const line = await within(ASK_TIMEOUT_MS, this.#lines.next()).catch(() => undefined);
    if (line === undefined || line.done === true) {
      this.#child.kill();
      throw new PeerMissing(`no answer to ${JSON.stringify(command).slice(0, 200)}`);
    }
    const answer = JSON.parse(line.value) as T & { error?: string };
    if (answer.error !== undefined) throw new PeerMissing(answer.error);
    return answer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin.end();
    await within(5000, this.#child.exited).catch(() => this.#child.kill());
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string, undefined> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    const lines = text.split("\n");
    text = lines.pop()!;
    yield* lines;
  }
  return undefined;
}

function within<T>(timeoutMs: number, promise: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`not within ${timeoutMs} ms`)), timeoutMs);
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
