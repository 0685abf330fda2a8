/** `bench recommend`: the settings that a run's figures support. */
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import { Command } from "commander";
import type { Measured } from "../bench/measured.ts";
import { readRecords } from "../bench/read.ts";
import { type Recommendation, recommend } from "../bench/recommend.ts";
import { adviceRows, loadCode, loadFlags, packFlags } from "../bench/recommend-text.ts";
import { groupText } from "../bench/text.ts";
import { HeadraceError, type MeasuredChoice, parseRecommended, saveText } from "../index.ts";
import { byteCount, printable, printPairs } from "./output.ts";
import { defaultRecommendedPath } from "./recommended.ts";
import { RESULTS_HELP, resultsPath } from "./results.ts";

interface RecommendFlags {
  readonly device?: string;
  readonly memory?: number;
  readonly save?: string | true;
  readonly json?: true;
}

const NOTES = `
A setting is recommended where the interval of its median lies above that of the next best; anything else is called
either. Formats and ways of other programs are not recommended.

Examples:
  headrace bench recommend results.jsonl
  headrace bench recommend results.jsonl --memory 500MB
  headrace bench recommend results.jsonl --save          for 'load --strategy auto', from then on
`;

/** The command, ready to be added to `bench`. */
export function benchRecommendCommand(): Command {
  return new Command("recommend")
    .description("Print the loader settings that the figures of a run support.")
    .argument("[results]", RESULTS_HELP)
    .option("--device <name>", "only figures of this device")
    .option("--memory <bytes>", "only what never took more memory, such as 500MB", byteCount)
    .option("--save [file]", `keep the choice between map and read (default: ${defaultRecommendedPath()})`)
    .option("--json", "one JSON object on stdout instead of text")
    .addHelpText("after", NOTES)
    .action(run);
}

function run(named: string | undefined, flags: RecommendFlags): void {
  const recommendation = recommend(readRecords(resultsPath(named)), {
    device: flags.device,
    memoryBytes: flags.memory,
  });
  if (flags.json) console.log(JSON.stringify(jsonOf(recommendation)));
  else print(recommendation);
  if (flags.save !== undefined)
    save(recommendation, flags.save === true ? defaultRecommendedPath() : flags.save);
}

function print({ run: { date, machine }, advice, measured, notes }: Recommendation): void {
  console.log(printable(`${machine.gpu ?? machine.cpu}, ${machine.disk}, ${date}`));
  for (const one of advice) {
    console.log(`\n${printable(`${groupText(one)}, on ${one.device}`)}`);
    printPairs(adviceRows(one).map(([name, value]) => [`  ${name}`, value]));
  }
  for (const one of measured) {
    console.log(`\n${printable(`--strategy auto, on ${one.recommended.device}`)}`);
    printPairs(measuredRows(one).map(([name, value]) => [`  ${name}`, value]));
  }
  if (notes.length > 0) console.log("");
  for (const note of notes) console.log(printable(note));
}

function measuredRows({ recommended: { cold, warm }, notes }: Measured): [string, string][] {
  const text = ({ strategy, gigabytesPerSecond, otherGigabytesPerSecond }: MeasuredChoice) => {
    const other = strategy === "map" ? "read" : "map";
    return `${strategy}, ${gigabytesPerSecond.toPrecision(3)} GB/s; ${other}, ${otherGigabytesPerSecond.toPrecision(3)} GB/s`;
  };
  return [
    ...(cold === undefined ? [] : [["not in memory", text(cold)] as [string, string]]),
    ...(warm === undefined ? [] : [["in memory", text(warm)] as [string, string]]),
    ...notes.map((note): [string, string] => ["open", note]),
  ];
}

function jsonOf({ run: { date, machine }, advice, measured, notes }: Recommendation) {
  return {
    date,
    machine,
    advice: advice.map(({ best, tied, next, ...one }) => ({
      ...one,
      best: { cell: best.key, gigabytesPerSecond: best.record.gigabytesPerSecond },
      tied: tied.map(({ key }) => key),
      next:
        next === undefined
          ? undefined
          : { cell: next.key, gigabytesPerSecond: next.record.gigabytesPerSecond },
      pack: packFlags(one),
      flags: loadFlags(one),
      code: loadCode(one),
    })),
    measured,
    notes,
  };
}

/** Keeps the figures at `path`; where none of them are clear, says so and leaves what is there. */
function save({ measured }: Recommendation, path: string): void {
  if (measured.length > 1) {
    const names = measured.map(({ recommended }) => recommended.device).join(", ");
    throw new HeadraceError(
      "BAD_OPTION",
      `the run has figures of ${names}, and a file holds those of one; name it by --device`,
    );
  }
  const [one] = measured;
  if (one === undefined || (one.recommended.cold ?? one.recommended.warm) === undefined) {
    const why = one?.notes.join("; ") ?? "no cell is left to recommend";
    console.error(`headrace: nothing was saved: ${printable(why)}`);
    return;
  }
  checkKept(path);
  mkdirSync(dirname(path), { recursive: true });
  saveText(path, `${JSON.stringify(one.recommended, undefined, 2)}\n`);
  console.error(
    `headrace: wrote ${printable(path)}; 'headrace load' and 'headrace inspect' go by it on this machine`,
  );
}

/** Nothing but figures is written over: what stands behind `--save` may have been meant as the results. */
function checkKept(path: string): void {
  if (!existsSync(path)) return;
  try {
    parseRecommended(readFileSync(path, "utf8"));
  } catch {
    throw new HeadraceError(
      "BAD_OPTION",
      `--save ${path}: that file is there and holds no figures of this kind; name another, or remove it`,
    );
  }
}
