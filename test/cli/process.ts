/** Runs the commands as a user does: in a process of their own. */
import { afterAll, setDefaultTimeout } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { LoaderState } from "../../src/index.ts";

setDefaultTimeout(60_000);

export const ROOT = join(import.meta.dir, "../..");
export const DATASETS = join(ROOT, "datasets");
export const MAIN = join(ROOT, "src/cli/main.ts");

/** How a process ended. */
export interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export interface Started {
  readonly child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly ended: Promise<Ended>;
}

/** Starts `headrace` with pipes for all that it prints. */
export function start(args: readonly string[], cwd = ROOT): Started {
  return spawn([process.execPath, MAIN, ...args], cwd);
}

/** `env` is added to what this process has. */
export function spawn(
  command: readonly string[],
  cwd = ROOT,
  env: Readonly<Record<string, string>> = {},
): Started {
  const all = { ...process.env, ...env };
  const child = Bun.spawn([...command], { cwd, env: all, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const finish = async () => {
    const [out, err] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
    ]);
    await child.exited;
    return { code: child.exitCode, out, err };
  };
  return { child, ended: finish() };
}

export function headrace(...args: string[]): Promise<Ended> {
  return start(args).ended;
}

/** The command line of `headrace` with `args`, for a shell. */
export function shellCommand(...args: string[]): string {
  return [process.execPath, MAIN, ...args].map((arg) => `'${arg}'`).join(" ");
}

/** What `load --json` says. */
export interface LoadReport {
  readonly dataset: string;
  readonly strategy: string;
  readonly samples: number;
  readonly batches: number;
  readonly bytes: number;
  readonly state: LoaderState;
  /** With `--digest` alone. */
  readonly digests: Readonly<Record<string, string>>;
}

/** What `headrace load … --json` says; throws where it fails or prints anything else. */
export async function report(...args: string[]): Promise<LoadReport> {
  const { code, out, err } = await headrace(...args, "--json");
  if (code !== 0 || err !== "" || out.trimEnd().includes("\n")) {
    throw new Error(`${args.join(" ")} ended with ${code}: ${out}${err}`);
  }
  return JSON.parse(out);
}

/** Runs `headrace` on a terminal of `cols` columns; all that it shows comes in `out`. */
export async function onTerminal(cols: number, ...args: string[]): Promise<Ended> {
  const chunks: Uint8Array[] = [];
  const child = Bun.spawn([process.execPath, MAIN, ...args], {
    cwd: ROOT,
    terminal: { cols, rows: 24, data: (_terminal, data) => void chunks.push(Uint8Array.from(data)) },
  });
  await child.exited;
  child.terminal?.close();
  return { code: child.exitCode, out: Buffer.concat(chunks).toString(), err: "" };
}

/** A fresh folder that goes when the file's tests are over. */
export function scratch(): string {
  const folder = mkdtempSync(join(tmpdir(), "headrace-cli-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export async function waitFor(what: string, condition: () => boolean, timeoutMs = 20_000): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await Bun.sleep(5);
  }
}
