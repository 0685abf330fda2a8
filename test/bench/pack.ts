/**
 * How fast JSONL becomes Arrow: `bun run bench:pack -- [--mib N] [--rounds N] [--folder DIR] [--memory GIB]`.
 *
 * Text, a few numbers and a list of tokens a row. Each trial is a process of its own, ours and pyarrow's
 * (`HEADRACE_PYTHON`) in turns, from its first import to its last byte written; CPU seconds stand in the notes. Ours
 * makes its file durable, which pyarrow does not. DIR defaults to one in memory, where there is one. With `--memory`, packs
 * once so many GiB on disk, to Arrow and to safetensors, and says how much memory that took.
 */
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { compare, peakRss, printRow, quantile, type Row, runScript, writeResults } from "./harness.ts";

const PYTHON = process.env.HEADRACE_PYTHON ?? "python3";
const PEER = join(import.meta.dir, "peers/pack_peer.py");

interface Trial {
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly peakBytes: number;
  readonly rows: number;
}

const { values } = parseArgs({
  options: {
    mib: { type: "string", default: "150" },
    rounds: { type: "string", default: "7" },
    folder: { type: "string" },
    memory: { type: "string" },
    trial: { type: "string", multiple: true },
  },
});

if (values.trial !== undefined) await runTrial(values.trial);
else await main();

/** In a process of its own. */
async function runTrial([source, out, to]: readonly string[]): Promise<void> {
  const started = performance.now();
  const { pack } = await import("../../src/index.ts");
  const { samples } = await pack(source!, { out: out!, overwrite: true, to: to as "arrow" | "safetensors" });
  const { user, system } = process.cpuUsage();
  const seconds = (performance.now() - started) / 1000;
  const trial: Trial = { seconds, cpuSeconds: (user + system) / 1e6, peakBytes: peakRss(), rows: samples };
  console.log(JSON.stringify(trial));
}

async function main(): Promise<void> {
  const versions = JSON.parse(python("versions")) as Record<string, string>;
  const inMemory = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
  const rows = inFolder(values.folder ?? inMemory, (folder) => {
    const source = join(folder, "rows.jsonl");
    makeSource(source, Number(values.mib) * 2 ** 20);
    return [againstPyarrow(folder, source)];
  });
  // So much does not go into memory.
  if (values.memory !== undefined) {
    const more = inFolder(values.folder ?? tmpdir(), (folder) => {
      const source = join(folder, "rows.jsonl");
      makeSource(source, Number(values.memory) * 2 ** 30);
      return ["arrow", "safetensors"].map((to) => memoryOf(folder, source, to));
    });
    rows.push(...more);
  }
  writeResults("pack", `bun run bench:pack -- ${process.argv.slice(2).join(" ")}`.trim(), rows, versions);
}

function inFolder<T>(parent: string, work: (folder: string) => T): T {
  const folder = mkdtempSync(join(parent, "headrace-pack-"));
  try {
    return work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function againstPyarrow(folder: string, source: string): Row {
  const megabytes = Bun.file(source).size / 1e6;
  const ours: Trial[] = [];
  const theirs: Trial[] = [];
  for (let round = -1; round < Number(values.rounds); round++) {
    const turns = [
      () => ours.push(trial(source, join(folder, "out"), "arrow")),
      () => theirs.push(JSON.parse(python(source, join(folder, "peer.arrow"))) as Trial),
    ];
    if (round % 2 === 0) turns.reverse();
    for (const turn of turns) turn();
    // The first round brings programs into memory.
    if (round < 0) ours.length = theirs.length = 0;
  }
  if (ours[0]!.rows !== theirs[0]!.rows)
    throw new Error(`${ours[0]!.rows} rows, and pyarrow has ${theirs[0]!.rows}`);
  const cpu = (trials: readonly Trial[]) =>
    quantile(
      trials.map(({ cpuSeconds }) => cpuSeconds),
      0.5,
    ).toPrecision(3);
  const peak = (trials: readonly Trial[]) =>
    Math.round(Math.max(...trials.map(({ peakBytes }) => peakBytes)) / 2 ** 20);
  return compare(
    {
      name: "pack.peer",
      unit: "MB/s",
      against: "pyarrow.json.read_json and an IPC file",
      higherIsBetter: true,
      note: `${cpu(ours)} s of CPU against ${cpu(theirs)}, ${peak(ours)} MiB against ${peak(theirs)}`,
    },
    ours.map(({ seconds }) => megabytes / seconds),
    theirs.map(({ seconds }) => megabytes / seconds),
  );
}

function memoryOf(folder: string, source: string, to: string): Row {
  const { peakBytes, seconds } = trial(source, join(folder, "out"), to);
  rmSync(join(folder, "out"), { recursive: true, force: true });
  const mebibytes = peakBytes / 2 ** 20;
  const size = `${(Bun.file(source).size / 2 ** 30).toFixed(1)} GiB of JSONL to ${to}, ${seconds.toFixed(1)} s`;
  const row = {
    name: `pack.memory.${to}`,
    median: mebibytes,
    p5: mebibytes,
    p95: mebibytes,
    unit: "MiB",
    against: "512 MiB",
    ratio: 512 / mebibytes,
    note: size,
  };
  printRow(row);
  return row;
}

function trial(source: string, out: string, to: string): Trial {
  return runScript("pack.ts", "--trial", source, "--trial", out, "--trial", to);
}

function python(...args: string[]): string {
  const { stdout, stderr, exitCode } = Bun.spawnSync([PYTHON, PEER, ...args]);
  if (exitCode !== 0) throw new Error(`${PYTHON}: ${stderr}`);
  return stdout.toString();
}

/** Rows of text, numbers and tokens until there are so many bytes; the same each time. */
function makeSource(path: string, byteLength: number): void {
  let seed = 7;
  const random = () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
  const words = Array.from({ length: 4000 }, () =>
    Array.from({ length: 2 + Math.floor(random() * 8) }, () =>
      String.fromCharCode(97 + Math.floor(random() * 26)),
    ).join(""),
  );
  const rows = Array.from({ length: 4000 }, (_, i) => {
    const text = Array.from(
      { length: 20 + Math.floor(random() * 100) },
      () => words[Math.floor(random() ** 3 * 4000)],
    ).join(" ");
    const tokens = Array.from({ length: 20 + Math.floor(random() * 140) }, () =>
      Math.floor(random() ** 4 * 50_000),
    );
    const score = random();
    return JSON.stringify({
      text: i % 7 === 0 ? `${text}\n"é"` : text,
      score,
      length: tokens.length,
      good: i % 3 === 0,
      tokens,
    });
  });
  const fd = openSync(path, "w");
  try {
    for (let at = 0, id = 0; at < byteLength; ) {
      const lines = rows.map((row) => `{"id":${id++},${row.slice(1)}\n`).join("");
      at += writeSync(fd, lines);
    }
  } finally {
    closeSync(fd);
  }
}
