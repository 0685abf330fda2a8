/** Arrow files with compressed bodies against pyarrow, which writes them too, where `HEADRACE_PYTHON` or
 * `HEADRACE_PEERS_PYTHON` names an interpreter that has it. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { warm } from "./bare.ts";
import { DATA_FOLDER } from "./data.ts";
import { measure, type Row } from "./harness.ts";
import type { Cases } from "./loader-cases.ts";
import { epochRate, openEndless } from "./stream-cases.ts";
import { DATA_BYTES, plainShard, ROW_ELEMENTS } from "./stream-data.ts";

const PYTHON = process.env.HEADRACE_PEERS_PYTHON ?? process.env.HEADRACE_PYTHON ?? "python3";
const SCRIPT = join(import.meta.dir, "peers/stream_peer.py");

function run(...args: string[]): string {
  const { stdout, stderr, exitCode } = Bun.spawnSync([PYTHON, SCRIPT, ...args]);
  if (exitCode !== 0) throw new Error(stderr.toString().trim().split("\n").at(-1));
  return stdout.toString().trim();
}

/** Of what is compared with. */
export function streamVersions(): Record<string, string> {
  const version = (...command: string[]) => {
    if (Bun.which(command[0]!) === null) return "absent";
    return /\d+\.\d+\.\d+/.exec(Bun.spawnSync(command).stdout.toString())?.[0] ?? "unknown";
  };
  const versions = { zstd: version("zstd", "--version"), lz4: version("lz4", "--version") };
  try {
    return { ...versions, pyarrow: run("version") };
  } catch {
    return versions;
  }
}

/** A Python that reads the file once for each line that it is sent, and answers with the seconds. */
class Reader {
  readonly #child: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #lines: ReadableStreamDefaultReader<Uint8Array>;

  constructor(path: string) {
    this.#child = Bun.spawn([PYTHON, SCRIPT, "read", path], { stdin: "pipe", stdout: "pipe" });
    this.#lines = this.#child.stdout.getReader();
  }

  async rate(): Promise<number> {
    this.#child.stdin.write("\n");
    this.#child.stdin.flush();
    let line = "";
    while (!line.endsWith("\n")) {
      const { value, done } = await this.#lines.read();
      if (done) throw new Error("pyarrow's process has ended");
      line += new TextDecoder().decode(value);
    }
    return DATA_BYTES / Number(line) / 1e9;
  }

  close(): void {
    this.#child.kill();
  }
}

async function againstPyarrow(codec: "zstd" | "lz4"): Promise<Row[]> {
  const path = join(DATA_FOLDER, `stream-tokens.${codec}-body.arrow`);
  try {
    if (!existsSync(path)) run("write", plainShard("tokens"), path, codec, String(ROW_ELEMENTS));
  } catch (error) {
    console.log(`stream.peer.pyarrow.${codec}: skipped: ${(error as Error).message}`);
    return [];
  }
  warm([path]);
  await using loader = await openEndless(path);
  const reader = new Reader(path);
  const row = await measure({
    name: `stream.peer.pyarrow.${codec}`,
    unit: "GB/s",
    against: "pyarrow reading the same record batches from a mapping",
    higherIsBetter: true,
    rounds: 9,
    note: "an Arrow file whose bodies pyarrow compressed, warm",
    ours: () => epochRate(loader),
    theirs: () => reader.rate(),
  });
  reader.close();
  return [row];
}

export const pyarrow: Cases = {
  "stream.peer.pyarrow.zstd": () => againstPyarrow("zstd"),
  "stream.peer.pyarrow.lz4": () => againstPyarrow("lz4"),
};
