/** An inference server for tests, which answers as it is told. */

/** What the server was asked. */
export interface Asked {
  readonly path: string;
  readonly headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: any JSON.
  readonly body: any;
  readonly atMs: number;
}

/** A server on a free port of this machine. */
export class TestServer implements AsyncDisposable {
  readonly asked: Asked[] = [];
  inFlight = 0;
  mostInFlight = 0;
  /** Requests that were given up before they were answered. */
  dropped = 0;
  readonly #server: ReturnType<typeof Bun.serve>;

  /** `answer` is given the number of the request, from 0. */
  constructor(answer: (asked: Asked, index: number) => Response | Promise<Response>) {
    this.#server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      idleTimeout: 0,
      fetch: async (request) => {
        const { pathname, search } = new URL(request.url);
        const text = await request.text();
        const body = text === "" ? undefined : JSON.parse(text);
        const asked = { path: pathname + search, headers: request.headers, body, atMs: performance.now() };
        const index = this.asked.push(asked) - 1;
        this.mostInFlight = Math.max(this.mostInFlight, ++this.inFlight);
        request.signal.addEventListener("abort", () => {
          this.dropped++;
        });
        try {
          return await answer(asked, index);
        } finally {
          this.inFlight--;
        }
      },
    });
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true);
  }
}

/** A good answer to a request for completions. */
export function completion(text: string, parts: object = {}, usage: object = {}): Response {
  return Response.json({
    id: "cmpl-1",
    object: "text_completion",
    choices: [{ index: 0, text, finish_reason: "stop", logprobs: null, ...parts }],
    usage: { prompt_tokens: 7, completion_tokens: 2, total_tokens: 9, ...usage },
  });
}

/** An address at which the first connection is given `first`, byte for byte, and later ones a good answer. */
export function rawServer(first: string): Disposable & { readonly url: string } {
  const body = '{"choices":[{"text":"a","finish_reason":"stop"}]}';
  const good = `HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  let connections = 0;
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data(socket) {
        socket.write(connections++ === 0 ? first : good);
        socket.end();
      },
    },
  });
  return { url: `http://127.0.0.1:${listener.port}`, [Symbol.dispose]: () => listener.stop(true) };
}

/** Never answers, unless the server is closed. */
export function silence(): Promise<Response> {
  return new Promise(() => {});
}
