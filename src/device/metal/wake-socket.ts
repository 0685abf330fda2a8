/** The wake-up by a socket that the event loop watches: the library writes a byte when rows wait. */
import { errnoError } from "../common/errors.ts";
import { openLibc } from "../host/libc.ts";
import type { Waker } from "./completions.ts";

/** What is used of the runtime's socket over a descriptor. */
interface FdSocket {
  unref(): void;
  terminate(): void;
}
interface FdConnect {
  fd: number;
  socket: { data(): void; end(): void; close(): void; error(): void };
}
const connectFd = Bun.connect as unknown as (options: FdConnect) => Promise<FdSocket>;

export class WakeSocket implements Waker {
  readonly #gone = Promise.withResolvers<void>();
  readonly #connected: Promise<FdSocket | undefined>;
  #socket: FdSocket | undefined;

  /** `fd` stays the library's: the socket watches, and later closes, a duplicate. */
  constructor(fd: number, wake: () => void) {
    const libc = openLibc();
    const own = libc.dup(fd);
    if (own < 0) throw errnoError("duplicating the wake-up descriptor", libc.errno());
    const ended = () => {
      this.#socket?.terminate();
      wake();
    };
    const socket = { data: wake, end: ended, close: () => this.#gone.resolve(), error: ended };
    this.#connected = connectFd({ fd: own, socket }).then(
      (connected) => {
        this.#socket = connected;
        connected.unref();
        return connected;
      },
      () => undefined,
    );
  }

  async close(): Promise<void> {
    const socket = await this.#connected;
    if (socket === undefined) return;
    socket.terminate();
    await this.#gone.promise;
  }
}
