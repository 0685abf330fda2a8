/** `--stream-codec`: makes the compressed form of each shard before it is streamed. */
import { type Device, HeadraceError, openDataset, type PreparedStream } from "../index.ts";
import { amountText, bytesText, isTerminal, printable } from "./output.ts";

/** How often the line of a terminal is drawn anew, ms. */
const EVERY_MS = 100;

/** What was prepared, as the report has it. */
export interface Prepared {
  readonly codec: string;
  readonly shards: number;
  /** Of them, those that were made now; the others were valid already. */
  readonly made: number;
  readonly sourceBytes: number;
  readonly streamBytes: number;
  readonly seconds: number;
}

/**
 * Makes or checks the compressed form of every shard of `source`, one after the other: each is compressed as
 * fast as the device can. What was finished stays when `signal` fires; then this throws `CANCELLED`. Throws
 * `UNSUPPORTED` where the device cannot stream, or not with `codec`.
 */
export async function prepareStreams(
  device: Device,
  source: string,
  codec: string,
  signal: AbortSignal,
): Promise<Prepared> {
  checkCodec(device, codec);
  const started = performance.now();
  const { paths, byteLength } = shardsOf(device, source);
  const line = new Line(byteLength, paths.length);
  let sourceBytes = 0;
  const prepared: PreparedStream[] = [];
  try {
    for (const [i, path] of paths.entries()) {
      signal.throwIfAborted();
      let shardBytes = 0;
      const onProgress = (done: number, length: number) => {
        shardBytes = length;
        line.draw(sourceBytes + done, i, path);
      };
      prepared.push(await device.prepareStream!(path, { signal, onProgress }));
      sourceBytes += shardBytes;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    throw new HeadraceError("CANCELLED", cancelledText(prepared.length, paths.length), { cause: error });
  } finally {
    line.clear();
  }
  return {
    codec,
    shards: paths.length,
    made: prepared.filter(({ made }) => made).length,
    sourceBytes: byteLength,
    streamBytes: prepared.reduce((total, stream) => total + stream.byteLength, 0),
    seconds: (performance.now() - started) / 1000,
  };
}

function cancelledText(numDone: number, numShards: number): string {
  if (numDone === 0) return `cancelled before any of ${amountText(numShards, "shard")} had been prepared`;
  const stay = numDone === 1 ? "stays" : "stay";
  return `cancelled after ${numDone} of ${amountText(numShards, "shard")} had been prepared, which ${stay}`;
}

/** The row of the closing table. */
export function preparedText({ codec, shards, made, sourceBytes, streamBytes }: Prepared): string {
  const ratio = streamBytes === 0 ? 1 : sourceBytes / streamBytes;
  return `${codec}, ${bytesText(streamBytes)} (${ratio.toPrecision(3)} to 1), ${made} of ${amountText(shards, "shard")} made now`;
}

function checkCodec(device: Device, codec: string): void {
  const { name, canStream, codecs } = device.capabilities;
  if (!canStream || device.prepareStream === undefined) {
    throw new HeadraceError(
      "UNSUPPORTED",
      `--stream-codec ${codec}: device ${name} does not stream; leave it out, or use --device metal on a Mac`,
    );
  }
  if (!codecs.includes(codec)) {
    const known = codecs.join(", ") || "none";
    throw new HeadraceError("UNSUPPORTED", `--stream-codec ${codec}: device ${name} decodes ${known}`);
  }
}

function shardsOf(device: Device, source: string): { paths: readonly string[]; byteLength: number } {
  using dataset = openDataset(source, device, { strategy: "read" });
  return { paths: dataset.shardPaths, byteLength: dataset.byteLength };
}

/** One line on a terminal that says how far it is; nothing elsewhere. */
class Line {
  readonly #byteLength: number;
  readonly #numShards: number;
  readonly #shown = isTerminal(2);
  #drawnMs = Number.NEGATIVE_INFINITY;

  constructor(byteLength: number, numShards: number) {
    this.#byteLength = byteLength;
    this.#numShards = numShards;
  }

  draw(bytesDone: number, shard: number, path: string): void {
    const now = performance.now();
    if (!this.#shown || now - this.#drawnMs < EVERY_MS) return;
    this.#drawnMs = now;
    const percent = Math.floor((100 * bytesDone) / Math.max(1, this.#byteLength));
    const text = `headrace: preparing streams ${percent}% (${shard + 1} of ${this.#numShards}: ${printable(path)})`;
    process.stderr.write(`\r\u001b[K${text.slice(0, (process.stderr.columns ?? 80) - 1)}`);
  }

  clear(): void {
    if (this.#shown && this.#drawnMs > Number.NEGATIVE_INFINITY) process.stderr.write("\r\u001b[K");
  }
}
