/** WebDataset's tar archives as rows: files that follow one another with one key are a sample. */
import { HeadraceError } from "../../errors.ts";
import { quoted } from "../../format/json.ts";
import type { PackBatch, PackColumn, RowSource } from "../rows.ts";
import { BATCH_BYTES, bytesColumn, checkUtf8, unitBytes } from "./columns.ts";
import { InputFile, withFile } from "./files.ts";
import { decompressed, filePieces, type PieceCodec, PieceReader } from "./pieces.ts";
import { badInput, type SourceOptions } from "./source.ts";
import { tarFiles } from "./tar.ts";
import { type TarColumn, type TarSample, tarColumns } from "./tar-columns.ts";

/** Samples that tell the columns, and bytes of them, at most. */
const SCOUTED_SAMPLES = 256;
const SCOUTED_BYTES = 16 * 2 ** 20;

/** Samples back to which an archive is searched for one of the same key. */
const REMEMBERED_KEYS = 65_536;

/** Links that were passed over, and the first archive with one. */
interface Links {
  count: number;
  path: string;
}

/** Samples and how much of the archive, as stored, they came from. */
interface Read {
  readonly sample: TarSample;
  readonly fileBytes: number;
}

/**
 * Opens tar archives, also compressed ones (`.gz`, `.tgz`, `.zst`), as one row a sample. A sample's key is its files' name
 * up to the first dot behind the last slash, and the rest of each name, in lower case, the ending; files without one are
 * passed over, links too, which `warnings` counts. A key that comes again within 65,536 samples of an archive is
 * `BAD_INPUT`: the files of a sample are neighbours. The first 256 samples (or 16 MiB of them) tell the columns; where a later one has an ending or a type of
 * its own, `BAD_INPUT` names archive and key. Holds a batch of samples. Throws that, `UNKNOWN_COLUMN`,
 * `UNSUPPORTED_TYPE`, `SOURCE_EMPTY`, `SOURCE_NOT_FOUND`, `IO_ERROR`.
 */
export async function openWebDataset(
  paths: readonly string[],
  options: SourceOptions = {},
): Promise<RowSource> {
  let byteLength = 0;
  for (const path of paths) byteLength += await withFile(path, async (file) => file.byteLength);
  const links: Links = { count: 0, path: "" };
  const columns = tarColumns(await scouted(paths), options.columns);
  return {
    fields: columns.map(({ field }) => field),
    byteLength,
    warnings: () => linksText(links),
    batches: (signal) => batchesOf(paths, columns, options.columns === undefined, links, signal),
    close: async () => {},
  };
}

function linksText({ count, path }: Links): readonly string[] {
  if (count === 0) return [];
  const what = count === 1 ? `1 link in ${path} was` : `${count} links, the first of them in ${path}, were`;
  return [`${what} left out; archive files in their place (tar --dereference --hard-dereference)`];
}

async function scouted(paths: readonly string[]): Promise<readonly TarSample[]> {
  const samples: TarSample[] = [];
  const links: Links = { count: 0, path: "" };
  let bytes = 0;
  for (const path of paths) {
    for await (const { sample } of samplesOf(path, links)) {
      samples.push(sample);
      bytes += bytesOf(sample);
      if (samples.length >= SCOUTED_SAMPLES || bytes >= SCOUTED_BYTES) return samples;
    }
  }
  if (samples.length > 0) return samples;
  const text = ["holds no sample (files named KEY.ENDING)", ...linksText(links)].join("; ");
  throw new HeadraceError("SOURCE_EMPTY", `${paths.join(", ")}: ${text}`);
}

async function* batchesOf(
  paths: readonly string[],
  columns: readonly TarColumn[],
  isWhole: boolean,
  links: Links,
  signal: AbortSignal | undefined,
): AsyncGenerator<PackBatch> {
  const endings = new Set(columns.map(({ ending }) => ending));
  let earlier = 0;
  let firstRow = 0;
  for (const path of paths) {
    let held: TarSample[] = [];
    let heldBytes = 0;
    let sourceBytes = earlier;
    const batch = () => {
      const made = {
        numRows: held.length,
        columns: columns.map((one) => columnOf(one, held, firstRow)),
        sourceBytes,
        path,
      };
      firstRow += held.length;
      held = [];
      heldBytes = 0;
      return made;
    };
    for await (const { sample, fileBytes } of samplesOf(path, links)) {
      signal?.throwIfAborted();
      const odd = isWhole ? [...sample.files.keys()].find((ending) => !endings.has(ending)) : undefined;
      if (odd !== undefined) {
        throw badInput(
          sample.place,
          `has a .${odd}, which the first samples have not; choose others by --columns`,
        );
      }
      held.push(sample);
      heldBytes += bytesOf(sample);
      sourceBytes = earlier + fileBytes;
      if (heldBytes >= BATCH_BYTES) yield batch();
    }
    if (held.length > 0) yield batch();
    earlier = sourceBytes;
  }
}

function bytesOf({ files }: TarSample): number {
  return files.values().reduce((total, bytes) => total + bytes.length, 0);
}

function columnOf(column: TarColumn, samples: readonly TarSample[], firstRow: number): PackColumn {
  const { field } = column;
  const values = samples.map((sample) => column.value(sample));
  const place = samples[0]!.place;
  if (field.kind !== "fixed") {
    const bytes = bytesColumn(values, place);
    if (field.kind === "utf8") checkUtf8(bytes, field.name, place, firstRow);
    const unit = unitBytes(field);
    return unit === 1 ? bytes : { ...bytes, offsets: bytes.offsets!.map((offset) => offset / unit) };
  }
  const unit = unitBytes(field);
  const all = new Uint8Array(samples.length * unit);
  const validity = new Uint8Array(samples.length).fill(1);
  let nullCount = 0;
  values.forEach((value, row) => {
    if (value !== null) all.set(value, row * unit);
    else {
      validity[row] = 0;
      nullCount++;
    }
  });
  return { values: all, validity: nullCount === 0 ? undefined : validity, nullCount };
}

/** Refuses keys that come again. Hashes of 64 bits stand for them: names may be long. */
class KeysSeen {
  readonly #path: string;
  readonly #hashes = new Set<number | bigint>();

  constructor(path: string) {
    this.#path = path;
  }

  /** Throws `BAD_INPUT` for a key that came before. */
  add(key: string): void {
    const hashes = this.#hashes;
    if (hashes.size === hashes.add(Bun.hash(key)).size) {
      const text =
        "comes again behind other samples; the files of a sample must follow one another (tar --sort=name)";
      throw badInput(placeOf(this.#path, key), text);
    }
    if (hashes.size > REMEMBERED_KEYS) hashes.delete(hashes.values().next().value!);
  }
}

/** The samples of one archive, in order. */
async function* samplesOf(path: string, links: Links): AsyncGenerator<Read> {
  const file = await InputFile.open(path);
  let fileBytes = 0;
  async function* counted(): AsyncGenerator<Uint8Array> {
    for await (const piece of filePieces(file)) {
      fileBytes += piece.length;
      yield piece;
    }
  }
  const codec = codecOf(path);
  const reader = new PieceReader(codec === undefined ? counted() : decompressed(counted(), codec, path));
  try {
    const keys = new KeysSeen(path);
    const onLink = () => {
      if (links.count++ === 0) links.path = path;
    };
    let key: string | undefined;
    let files = new Map<string, Uint8Array>();
    for await (const { name, bytes } of tarFiles(reader, path, onLink)) {
      const parts = /^((?:.*\/)?[^./][^./]*)\.([^/]+)$/.exec(name);
      if (parts === null) continue;
      const [, nextKey, ending] = parts as unknown as [string, string, string];
      if (key !== nextKey) {
        if (key !== undefined) yield { sample: { key, place: placeOf(path, key), files }, fileBytes };
        keys.add(nextKey);
        key = nextKey;
        files = new Map();
      }
      const lower = ending.toLowerCase();
      if (files.has(lower)) throw badInput(placeOf(path, key), `has two files that end in .${lower}`);
      files.set(lower, bytes);
    }
    if (key !== undefined) yield { sample: { key, place: placeOf(path, key), files }, fileBytes };
  } finally {
    await reader.close();
    await file.close();
  }
}

function placeOf(path: string, key: string): string {
  return `${path}: sample ${quoted(key)}`;
}

function codecOf(path: string): PieceCodec | undefined {
  if (/\.t?gz$/i.test(path)) return "gzip";
  return /\.t?zst$/i.test(path) ? "zstd" : undefined;
}
