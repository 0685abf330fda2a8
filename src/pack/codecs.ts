/** By what name shards end, and what compresses them. */
import type { CodecName } from "../codec/codec.ts";
import { type ContainerWriter, openContainer } from "../codec/container.ts";
import { checkLevel, openCompressor } from "../codec/open.ts";
import { HeadraceError } from "../errors.ts";
import type { BodyCodec } from "../format/arrow-write.ts";
import type { FileOps } from "../loader/writeback/files.ts";
import { PlainSink, type Sink, type SinkEnd } from "./files.ts";
import { isMtlioCodec } from "./mtlio.ts";
import type { PackCodec, PackFormat, PackOptions } from "./options.ts";
import { threadsOf } from "./threads.ts";

/** How the shards of one run are stored. */
export interface Storage {
  /** `.arrow`, `.safetensors.bp.zst`. */
  readonly ending: string;
  /** For the buffers inside Arrow files. */
  readonly body?: BodyCodec | undefined;
  /** Opens a file for the bytes of a shard, which is compressed on its way where it is so as a whole. Throws `DISK_FULL`,
   * `IO_ERROR`, as the methods of what it gives do. */
  openSink(path: string, ops: FileOps): Promise<Sink>;
  /** Ends what compresses. */
  close(): void;
}

const ENDINGS: Readonly<Record<CodecName, string>> = { zstd: ".zst", lz4: ".lz4" };

/** What `options` make of shards of `format`. Throws `BAD_OPTION` for options that do not go together. */
export function openStorage(format: PackFormat, options: PackOptions): Storage {
  const codec: PackCodec = options.codec ?? "none";
  const plain = `.${format}`;
  checkTogether(format, codec, options);
  if (codec === "none" || isMtlioCodec(codec)) return { ending: plain, openSink: PlainSink.open, close() {} };
  if (codec === "zstd-body" || codec === "lz4-body") {
    const name = codec === "zstd-body" ? "zstd" : "lz4";
    const compressor = openCompressor(name, { level: options.level });
    const body: BodyCodec = { codec: name, compress: (bytes) => compressor.frame(bytes) };
    return { ending: plain, body, openSink: PlainSink.open, close: () => compressor.close() };
  }
  const { level, chunkBytes, planes = false } = options;
  checkLevel(codec, level);
  const container = { codec, level, chunkBytes, planes, threads: threadsOf(options) };
  return {
    ending: `${plain}${planes ? ".bp" : ""}${ENDINGS[codec]}`,
    openSink: async (path, ops) =>
      new ContainerSink(await openContainer(() => PlainSink.open(path, ops), container)),
    close() {},
  };
}

function checkTogether(format: PackFormat, codec: PackCodec, options: PackOptions): void {
  const { level, chunkBytes, planes = false } = options;
  const container = codec === "zstd" || codec === "lz4";
  if (codec.endsWith("-body") && format !== "arrow")
    throw bad(
      `codec ${codec} compresses the buffers of Arrow files, and to is ${format}; use ${codec.slice(0, -5)}`,
    );
  if (chunkBytes !== undefined && !container && !isMtlioCodec(codec))
    throw bad(`chunkBytes means nothing with codec ${codec}`);
  if (level !== undefined && (codec === "none" || isMtlioCodec(codec)))
    throw bad(`level means nothing with codec ${codec}`);
  if (planes && (codec !== "zstd" || format !== "safetensors"))
    throw bad(`planes are for safetensors with codec zstd, and this is ${format} with codec ${codec}`);
}

/** A file that is compressed on its way. */
class ContainerSink implements Sink {
  byteLength = 0;
  readonly #writer: ContainerWriter<SinkEnd>;

  constructor(writer: ContainerWriter<SinkEnd>) {
    this.#writer = writer;
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.byteLength += bytes.length;
    await this.#writer.write(bytes);
  }

  async finish(): Promise<SinkEnd> {
    const { byteLength, file } = await this.#writer.finish();
    return { ...file, byteLength };
  }

  abort(): Promise<void> {
    return this.#writer.abort();
  }
}

function bad(message: string): HeadraceError {
  return new HeadraceError("BAD_OPTION", message);
}
