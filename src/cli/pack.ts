/** `pack`: turns data of other formats into shards. */
import { Command, InvalidArgumentError, Option } from "commander";
import {
  PACK_CODECS,
  type PackCodec,
  type PackFormat,
  type PackOptions,
  type PackReport,
  pack,
} from "../index.ts";
import { asFlags } from "./flags.ts";
import {
  amountText,
  byteCount,
  bytesText,
  countText,
  ExitCode,
  nameList,
  printable,
  printLine,
  printPairs,
  timeText,
  wholeNumber,
} from "./output.ts";
import { BytesBar, untilSignal } from "./pack-progress.ts";

interface PackFlags {
  readonly out: string;
  readonly to?: PackFormat;
  readonly name?: string;
  readonly shardBytes?: number;
  readonly rowsPerBatch?: number;
  readonly codec: PackCodec;
  readonly level?: number;
  readonly chunk?: number;
  readonly planes?: true;
  readonly columns?: string[];
  readonly rename?: Record<string, string>;
  readonly cast?: Record<string, string>;
  readonly saturate?: true;
  readonly schema?: Record<string, string>;
  readonly tokenizer?: string;
  readonly textColumn?: string;
  readonly tokensColumn?: string;
  readonly keepText?: true;
  readonly maxTokens?: number;
  readonly special: boolean;
  readonly limit?: number;
  readonly badRows: "fail" | "skip";
  readonly delimiter?: string;
  readonly threads?: number;
  readonly overwrite?: true;
  readonly progress?: true;
  readonly json?: true;
}

const NOTES = `
Takes JSONL and CSV (also .gz and .zst), Parquet, .npy and .npz, WebDataset tars, safetensors, Arrow, and Hugging Face
checkpoint folders; files of one kind, a folder of them, or a glob. Shards are written under other names and renamed when
they are whole; dataset.json comes last. The same source and options give the same bytes, whatever --threads says.

Codecs: zstd and lz4 compress whole files in chunks (x.arrow.zst), zstd-body and lz4-body the buffers inside Arrow files,
mtlio-* makes what Metal's file queue reads, on a Mac.

Examples:
  headrace pack prose.jsonl --out packed/
  headrace pack 'data/*.jsonl.gz' --out packed/ --tokenizer models/llama --text-column text --codec zstd
  headrace pack table.csv --out packed/ --schema zip=utf8 --columns 'zip,price*' --cast 'price*=f32'
  headrace pack train.parquet --out packed/ --to safetensors --shard-bytes 1GB
  headrace pack models/llama --out packed/ --cast f32=bf16 --codec zstd --planes

Exit codes: 0 done, 1 failed, 2 bad usage; 130 after Ctrl-C and 143 after SIGTERM, and the folder is as it was.
`;

/** The command, ready to be added to a program. */
export function packCommand(): Command {
  const command = new Command("pack")
    .description("Turn data of other formats into shards.")
    .argument("<source...>", "what to pack: files of one kind, a folder, or a glob")
    .requiredOption("--out <folder>", "where shards and dataset.json go")
    .addOption(
      new Option("--to <format>", "default: arrow for rows, safetensors for tensors").choices([
        "arrow",
        "safetensors",
      ]),
    )
    .option("--name <name>", "what shards' names begin with (default: the source's name)")
    .option("--shard-bytes <bytes>", "of a shard, at most, before compression (default: 256MiB)", byteCount)
    .option(
      "--rows-per-batch <rows>",
      "of an Arrow record batch, at most (default: about 2 MiB)",
      wholeNumber(1),
    )
    .addOption(
      new Option("--codec <name>", "how shards are compressed").choices([...PACK_CODECS]).default("none"),
    )
    .option("--level <number>", "of the codec (default: its own)", wholeNumber(1, 22))
    .option("--chunk <bytes>", "of a chunk that is compressed by itself (default: the codec's)", byteCount)
    .option(
      "--planes",
      "split the bytes of floats first, where the codec is zstd and shards are safetensors",
    );
  addRows(command);
  return command
    .option("--threads <count>", "that parse and compress (default: one a core, up to 8)", wholeNumber(1, 64))
    .option("--overwrite", "replace what an earlier run packed there")
    .option("--progress", "a line every 5 s on stderr, also where it is no terminal")
    .option("--json", "one JSON object on stdout instead of a table")
    .addHelpText("after", NOTES)
    .action(run);
}

function addRows(command: Command): void {
  command
    .option(
      "--columns <names>",
      "names or patterns of the columns to pack, with commas (default: all)",
      nameList,
    )
    .option("--rename <pairs>", "new names of columns: old=new, with commas", pairs("old=new", true))
    .option("--cast <pairs>", "types to convert to: column=f16, or of tensors f32=bf16", pairs("column=type"))
    .option("--saturate", "casts to integers take the nearest that fits, and do not stop")
    .option(
      "--schema <pairs>",
      "JSONL, CSV: types, such as id=i64,tags=i32[],vector=f32[768],name=utf8",
      pairs("column=type"),
    )
    .option("--tokenizer <path>", "tokenizer.json or its folder, or bytes: ids take the text's place")
    .option("--text-column <name>", "what is tokenised (default: text)")
    .option("--tokens-column <name>", "what the column of ids is called (default: tokens)")
    .option("--keep-text", "keep the text beside its ids")
    .option("--no-special", "ids without what prompts begin and end with (BOS, most often)")
    .option("--max-tokens <count>", "of a row; what is over is cut off", wholeNumber(1))
    .option("--limit <rows>", "only the first rows", wholeNumber(1))
    .addOption(
      new Option("--bad-rows <way>", "JSONL, CSV: what becomes of rows that cannot be read")
        .choices(["fail", "skip"])
        .default("fail"),
    )
    .option(
      "--delimiter <character>",
      "CSV: between fields; \\t is understood (default: a comma, a tab in .tsv)",
    );
}

/** Parses `a=b,c=d`, with `emptyKeys` also `=b`; commas within brackets are part of a value. No key may come twice, be it
 * in one option or where the option is repeated. */
function pairs(
  form: string,
  emptyKeys = false,
): (text: string, before?: Record<string, string>) => Record<string, string> {
  return (text, before = {}) => {
    const all = { ...before };
    for (const pair of text.split(/,(?![^[]*\])/)) {
      const at = pair.lastIndexOf("=");
      const key = pair.slice(0, at).trim();
      const value = pair.slice(at + 1).trim();
      if (at < 0 || (key === "" && !emptyKeys) || value === "")
        throw new InvalidArgumentError(`It must be ${form}, with commas between.`);
      if (Object.hasOwn(all, key))
        throw new InvalidArgumentError(`It names ${JSON.stringify(key)} twice: ${all[key]} and ${value}.`);
      all[key] = value;
    }
    return all;
  };
}

async function run(sources: string[], flags: PackFlags): Promise<void> {
  using bar = new BytesBar(flags);
  const report = await untilSignal(bar, `interrupted; ${printable(flags.out)} is as it was`, (signal) =>
    pack(sources, {
      ...optionsOf(flags),
      signal,
      onProgress: ({ sourceBytes, totalBytes, samples, shards }) =>
        bar.updateBytes(
          sourceBytes,
          totalBytes,
          `${amountText(samples, "sample")}, ${amountText(shards, "shard")}`,
        ),
    }),
  );
  if (report === undefined) return;
  for (const warning of report.warnings) console.error(`headrace: ${printable(asFlags(warning, "pack"))}`);
  if (flags.json) printLine(JSON.stringify(report));
  else printReport(report);
  process.exitCode = ExitCode.done;
}

function optionsOf({ chunk, cast, delimiter, special, ...flags }: PackFlags): PackOptions {
  const casts = Object.entries(cast ?? {}).map(([column, type]) => [column, type.toUpperCase()]);
  return {
    ...flags,
    chunkBytes: chunk,
    addSpecial: special ? undefined : false,
    delimiter: delimiter === "\\t" ? "\t" : delimiter,
    casts: cast === undefined ? undefined : (Object.fromEntries(casts) as PackOptions["casts"]),
  };
}

function printReport(report: PackReport): void {
  const { samples, skippedRows, shards, sourceBytes, logicalBytes, bytes, streamBytes, seconds, codec } =
    report;
  const rate = `${bytesText(sourceBytes / seconds)}/s`;
  const rows: [string, string][] = [
    ["packed", `${bytesText(sourceBytes)} in ${timeText(seconds * 1000)}, ${rate}`],
    [
      report.view,
      `${countText(samples)}${skippedRows > 0 ? `; ${amountText(skippedRows, "row")} could not be read and were left out` : ""}`,
    ],
    ["shards", `${amountText(shards.length, "shard")} of ${report.format}, ${bytesText(bytes)}`],
  ];
  if (bytes < logicalBytes)
    rows.push(["compressed", `${(logicalBytes / bytes).toFixed(2)} to 1 by ${codec}`]);
  if (streamBytes !== undefined) rows.push(["for MTLIO", `${bytesText(streamBytes)} by ${codec}`]);
  rows.push(["written to", report.out]);
  printPairs(rows);
}
