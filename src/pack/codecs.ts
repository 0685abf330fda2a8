/** By what name shards end, and what compresses them. */

import { HeadraceError } from "../errors.ts";
import type { BodyCodec } from "../format/arrow-write.ts";
import type { Sink } from "./files.ts";
import { isMtlioCodec } from "./mtlio.ts";
import type { PackCodec, PackFormat, PackOptions } from "./options.ts";

/** How the shards of one run are stored. */
export interface Storage {
  /** `.arrow`, `.safetensors.bp.zst`. */
  readonly ending: string;
  /** For the buffers inside Arrow files. */
  readonly body?: BodyCodec | undefined;
  /** For whole files. */
  readonly openContainer?: ((path: string) => Promise<Sink>) | undefined;
}

/** What `options` make of shards of `format`. Throws `BAD_OPTION` for options that do not go together. */
export function storageOf(format: PackFormat, options: PackOptions): Storage {
  const codec: PackCodec = options.codec ?? "none";
  const ending = `.${format}`;
  if (codec !== "zstd" && codec !== "lz4") {
    for (const name of ["chunkBytes", "planes"] as const) {
      if (options[name] !== undefined && options[name] !== false && !isMtlioCodec(codec))
        throw bad(`${name} is for the codecs zstd and lz4, and codec is ${codec}`);
    }
  }
  if (codec === "none" || isMtlioCodec(codec)) {
    if (options.level !== undefined) throw bad(`level means nothing with codec ${codec}`);
    return { ending };
  }
  throw bad(`codec ${codec} is not there`);
}

function bad(message: string): HeadraceError {
  return new HeadraceError("BAD_OPTION", message);
}
