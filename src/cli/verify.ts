/** `verify`: checks shards, and says which are damaged. */
import { Command, Option } from "commander";
import { type VerifiedShard, type VerifyReport, verify } from "../index.ts";
import {
  amountText,
  bytesText,
  countText,
  ExitCode,
  printable,
  printLine,
  printPairs,
  printTable,
  timeText,
} from "./output.ts";
import { BytesBar, untilSignal } from "./pack-progress.ts";

interface VerifyFlags {
  readonly view: "auto" | "rows" | "tensors";
  readonly digests: boolean;
  readonly progress?: true;
  readonly json?: true;
}

const NOTES = `
Of each shard: its length and sha256 as dataset.json lists them, its structure, columns and number of samples, all values
(compressed chunks by their checksums, offsets of lists, codes of dictionaries, text as UTF-8), and the least and largest
value of each column as listed. Without dataset.json, what needs none of it.

Examples:
  headrace verify packed/
  headrace verify datasets/prose --json
  headrace verify 'data/*.safetensors' --view tensors

Exit codes: 0 all is well, 1 a shard is damaged, or verifying failed, 2 bad usage; 130 after Ctrl-C, 143 after SIGTERM.
`;

/** The command, ready to be added to a program. */
export function verifyCommand(): Command {
  return new Command("verify")
    .description("Check shards: structure, digests and every value that leads somewhere.")
    .argument("<source>", "shard, folder, glob or dataset.json")
    .addOption(
      new Option("--view <view>", "how samples are seen")
        .choices(["auto", "rows", "tensors"])
        .default("auto"),
    )
    .option("--no-digests", "leave the sha256 out, which reads all of each file")
    .option("--progress", "a line every 5 s on stderr, also where it is no terminal")
    .option("--json", "one JSON object on stdout instead of a table")
    .addHelpText("after", NOTES)
    .action(run);
}

async function run(source: string, flags: VerifyFlags): Promise<void> {
  using bar = new BytesBar(flags);
  const report = await untilSignal(bar, "interrupted before all was checked", (signal) =>
    verify(source, {
      view: flags.view,
      digests: flags.digests,
      signal,
      onProgress: (bytes, total, shards) => bar.updateBytes(bytes, total, amountText(shards, "shard")),
    }),
  );
  if (report === undefined) return;
  if (flags.json) printLine(JSON.stringify({ ...report, ok: report.failedShards === 0 }));
  else await printReport(report);
  process.exitCode = sayHowItEnded(report);
}

/** The exit code. */
function sayHowItEnded({ shards, failedShards }: VerifyReport): number {
  if (failedShards === 0) return ExitCode.done;
  for (const { problems } of shards) {
    for (const { code, message } of problems) console.error(`headrace: ${printable(message)} [${code}]`);
  }
  const names = shards.filter(isBad).map(({ path }) => path);
  console.error(
    `headrace: ${failedShards} of ${amountText(shards.length, "shard")} failed: ${printable(names.join(", "))}`,
  );
  return ExitCode.failed;
}

async function printReport(report: VerifyReport): Promise<void> {
  await printTable(
    ["shard", "samples", "bytes", "checked", "result"],
    report.shards.map((shard) => [
      shard.path,
      shard.samples === undefined ? "-" : countText(shard.samples),
      isMissing(shard) ? "-" : bytesText(shard.bytes),
      shard.checks.join(" "),
      isBad(shard) ? shard.problems.map(({ code }) => code).join(" ") : "ok",
    ]),
  );
  console.log("");
  const against = report.manifest ? "dataset.json" : "themselves alone: there is no dataset.json";
  printPairs([
    ["verified", `${amountText(report.shards.length, "shard")} against ${against}`],
    ["samples", countText(report.samples)],
    ["bytes", `${bytesText(report.bytes)} in ${timeText(report.seconds * 1000)}`],
    ["failed", amountText(report.failedShards, "shard")],
  ]);
}

function isMissing({ problems }: VerifiedShard): boolean {
  return problems.some(({ code }) => code === "SOURCE_NOT_FOUND");
}

function isBad({ problems }: VerifiedShard): boolean {
  return problems.length > 0;
}
