import { describe, expect, test } from "bun:test";
import { chmodSync, cpSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { DEVICE_NAMES } from "../../src/index.ts";
import { DATASETS, headrace, ROOT, report, scratch, shellCommand, spawn, start } from "./process.ts";

const folder = scratch();
const DIGITS = join(DATASETS, "digits");

/** One line on stderr, nothing on stdout, no stack. */
function expectLine({ code, out, err }: { code: number | null; out: string; err: string }, wanted: number) {
  expect({ code, out, err }).toEqual({
    code: wanted,
    out: "",
    err: expect.stringMatching(/^headrace: .*\n$/),
  });
  expect(err.trimEnd()).not.toContain("\n");
  expect(err).not.toMatch(/\bat .*\.ts:\d/);
}

describe("bad usage ends with 2", () => {
  test.concurrent.each([
    [["load", "--bath-size", "3"], "--batch-size"],
    [["load", "--batch-size", "0"], "whole number from 1"],
    [["load", "--batch-bytes", "4 bananas"], "64MiB"],
    [["load", "--epochs", "-1"], "whole number from 0"],
    [["load", "--strategy", "guess"], "Allowed choices are auto, map, read"],
    [["load", "--last-batch", "keep"], "short, drop, pad"],
    [["load", "--pad-to", "8", "--pad-value", "x"], "must be a number"],
    [["load", "--timeout", "0"], "whole number from 1; see"],
    [["load", "--lanes", "0"], "It must be a whole number from 1 to 64; see"],
    [["load", "--lanes", "65"], "It must be a whole number from 1 to 64; see"],
    [["load", "--prefetch", "5000"], "It must be a whole number from 0 to 1024; see"],
    [["load", "--window", "65537"], "It must be a whole number from 1 to 65536; see"],
    [["load", "--shuffle", "datasets/digits"], "name the source before --shuffle"],
    [["load", "--batch-size"], "argument missing"],
    [["load", "a", "b"], "too many arguments"],
    [["lod"], "Did you mean load?"],
    [["inspect"], "missing required argument"],
    [["--json"], "unknown option"],
  ])("%p", async (args, text) => {
    const ended = await headrace(...args);
    expectLine(ended, 2);
    expect(ended.err).toContain(text);
    expect(ended.err).toContain("--help'");
    expect(ended.err).not.toContain(".;");
  });

  test.concurrent.each([
    [["--rank", "2", "--world-size", "2"], "rank is 2; it must be below --world-size (2)"],
    [["--batch-bytes", "4kB", "--batch-length", "9"], "--batch-bytes and --batch-length exclude each other"],
    [["--block", "8"], "--block means nothing without --shuffle"],
    [["--shuffle", "--window", "8"], "--window means nothing without --block"],
    [["--pad-value", "1"], "--pad-value means nothing without --pad-to"],
    [["--length-column", "tokens"], "--length-column means nothing without --batch-length"],
    [["--batch-length", "100"], "--length-column"],
    [["--device", "tpu"], "auto, host, null"],
  ])("load %p", async (args, text) => {
    const ended = await headrace("load", ...args);
    expectLine(ended, 2);
    expect(ended.err).toContain(text);
    expect(ended.err).toEndWith(" [BAD_OPTION]\n");
  });
});

test("a column that is not there is a mistake of usage: 2", async () => {
  const ended = await headrace("load", "--columns", "tokns");
  expectLine(ended, 2);
  expect(ended.err).toMatch(/tokns.*tokens.*\[UNKNOWN_COLUMN\]/);
});

describe("a failed load ends with 1", () => {
  test("a source that is not there", async () => {
    const ended = await headrace("load", join(folder, "nowhere"));
    expectLine(ended, 1);
    expect(ended.err).toContain(`${folder}/nowhere: there is no such file or folder [SOURCE_NOT_FOUND]`);
  });

  test("a truncated shard, alone and under a manifest", async () => {
    const broken = join(folder, "broken");
    cpSync(DIGITS, broken, { recursive: true });
    const shard = join(broken, "digits-00001.safetensors");
    truncateSync(shard, 100_000);
    const alone = await headrace("load", shard);
    expectLine(alone, 1);
    expect(alone.err).toMatch(/digits-00001\.safetensors: .*\[DATA_INCOMPLETE\]/);
    const listed = await headrace("load", broken, "--json");
    expectLine(listed, 1);
    expect(listed.err).toMatch(/digits-00001\.safetensors: .*\[(FILE_CHANGED|DATA_INCOMPLETE)\]/);
    expectLine(await headrace("inspect", broken), 1);
  });

  test("a stack with --debug alone", async () => {
    const { code, out, err } = await headrace("load", join(folder, "nowhere"), "--debug");
    expect({ code, out }).toEqual({ code: 1, out: "" });
    expect(err).toStartWith("headrace: ");
    expect(err).toMatch(/at .*source\.ts:\d+/);
  });

  test("names out of files cannot speak to the terminal", async () => {
    const header = JSON.stringify({
      "a\u001b[31m\nb": { dtype: "U8", shape: [1], data_offsets: [0, 1] },
      c: { dtype: "U8", shape: [1], data_offsets: [1, 2] },
    });
    const shard = join(folder, "names.safetensors");
    const length = new BigUint64Array([BigInt(header.length)]);
    writeFileSync(shard, Buffer.concat([new Uint8Array(length.buffer), Buffer.from(`${header}\0\0`)]));
    const shown = await headrace("inspect", shard);
    expect(shown.code).toBe(0);
    expect(shown.out).toContain("a\\u{001b}[31m\\u{000a}b");
    const digests = await headrace("load", shard, "--digest");
    expect(digests.out).toContain("sha256 a\\u{001b}[31m\\u{000a}b");
    const ended = await headrace("load", shard, "--columns", "\u001b[31m");
    expectLine(ended, 2);
    expect(shown.out + digests.out + ended.err).not.toContain("\u001b");
  });
});

describe("states", () => {
  test("of another dataset, another order, or nothing of the kind are refused", async () => {
    const state = join(folder, "prose.json");
    await report("load", "--limit", "10", "--state", state);
    const other = await headrace("load", DIGITS, "--resume", state);
    expectLine(other, 1);
    expect(other.err).toMatch(/another dataset.*\[STATE_MISMATCH\]/);
    const order = await headrace("load", "--shuffle", "3", "--resume", state);
    expectLine(order, 1);
    expect(order.err).toMatch(/--shuffle.*3.*\[STATE_MISMATCH\]/);
    writeFileSync(state, "{");
    expectLine(await headrace("load", "--resume", state), 1);
    writeFileSync(state, `"${" ".repeat(100_000)}"`);
    expect((await headrace("load", "--resume", state)).err).toContain("100002 bytes");
    rmSync(state);
    const gone = await headrace("load", "--resume", state);
    expectLine(gone, 1);
    expect(gone.err).toContain(`${state}: there is no such state file`);
  });

  test("at the end of the epochs that are asked for say so, and what to do", async () => {
    const state = join(folder, "end.json");
    await report("load", "--limit", "10", "--epochs", "2", "--state", state);
    const resume = ["load", "--limit", "10", "--resume", state];
    const one = await headrace(...resume, "--json");
    expect(one).toMatchObject({
      code: 0,
      err: `headrace: ${state} stands at the end of 2 epochs, and --epochs is 1: nothing is left to load; go on with --epochs 3, or begin anew without --resume\n`,
    });
    expect(JSON.parse(one.out)).toMatchObject({ samples: 0 });
    const two = await headrace(...resume, "--epochs", "2");
    expect(two).toMatchObject({ code: 0, err: expect.stringContaining("and --epochs asks for 2: nothing") });
    expect(await report(...resume, "--epochs", "3")).toMatchObject({ samples: 10 });
    // Behind the last sample that a lower limit leaves, and still within its epoch.
    await report("load", "--limit", "20", "--batch-size", "10", "--epochs", "1", "--state", state);
    const text = readFileSync(state, "utf8");
    writeFileSync(state, JSON.stringify({ ...JSON.parse(text), epoch: 0, position: 10 }));
    expect((await headrace(...resume)).err).toContain(
      `${state} stands at the end of 1 epoch, and --epochs is 1`,
    );
  });

  test("that cannot be written fail at once, before a long run", async () => {
    const inFile = join(folder, "file");
    writeFileSync(inFile, "");
    for (const [path, code] of [
      [join(folder, "missing/state.json"), "ENOENT"],
      [join(inFile, "state.json"), "ENOTDIR"],
      [folder, "EISDIR"],
    ] as const) {
      const ended = await headrace("load", "--epochs", "100000000", "--state", path);
      expectLine(ended, 1);
      const hint = code === "ENOENT" ? ": its folder does not exist" : "";
      expect(ended.err).toContain(`${path}: cannot be written (${code}${hint}) [IO_ERROR]`);
    }
    const locked = join(folder, "locked");
    mkdirSync(locked);
    chmodSync(locked, 0o500);
    if (process.getuid?.() === 0) console.log("skipped: a folder without write permission; root may write");
    else expectLine(await headrace("load", "--state", join(locked, "state.json")), 1);
    chmodSync(locked, 0o700);
  });
});

describe("help", () => {
  test.each([["load"], ["inspect"]])(
    "%s --help shows every option and examples on stdout",
    async (command) => {
      const { code, out, err } = await headrace(command, "--help");
      expect({ code, err }).toEqual({ code: 0, err: "" });
      expect(out).toContain("Examples:");
      expect(out).toContain(`headrace ${command} data`);
      expect(out).toContain("--json");
      expect(out).toContain("--debug");
    },
  );

  test("load --help says what each device is for", async () => {
    const { out } = await headrace("load", "--help");
    expect(out).toMatch(/--device <name> +auto, host, metal or cuda/);
    for (const name of DEVICE_NAMES) expect(out).toMatch(new RegExp(`^ {2}${name} +\\S.*`, "m"));
    expect(out).toMatch(/^ {2}cuda +.*by name only: .* see HostReader$/m);
    expect(out).toMatch(/^ {2}null +moves no bytes: /m);
  });

  test("no arguments print the commands", async () => {
    const { code, out, err } = await headrace();
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(/^Usage: headrace/);
    expect(err).toContain("inspect [options] <source>");
    expect((await headrace("--help")).out).toBe(err);
  });

  test("--version is the package's", async () => {
    expect(await headrace("--version")).toEqual({ code: 0, out: `${packageJson.version}\n`, err: "" });
  });
});

describe("where it runs", () => {
  test("the default dataset is found from any folder", async () => {
    const { code, out } = await start(["load", "--json"], folder).ended;
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ dataset: join(DATASETS, "prose"), samples: 3000 });
  });

  test("paths may hold spaces and any script; globs work there", async () => {
    const strange = join(folder, "mit Leerzeichen – 数据 'q'");
    cpSync(DIGITS, strange, { recursive: true });
    const whole = await report("load", strange, "--digest");
    expect(whole).toMatchObject({ dataset: strange, samples: 2000 });
    expect(await report("load", join(strange, "*1.safetensors"))).toMatchObject({ samples: 500 });
    expect(whole.digests).toEqual((await report("load", DIGITS, "--digest")).digests);
  });

  test("bun run load keeps stdout clean", async () => {
    const { code, out } = await spawn([process.execPath, "run", "load", "--json", "--limit", "5"], ROOT)
      .ended;
    expect(code).toBe(0);
    expect(JSON.parse(out).samples).toBe(5);
    const inspected = await spawn([process.execPath, "run", "inspect", "datasets/digits", "--json"]).ended;
    expect(JSON.parse(inspected.out).samples).toBe(2000);
  });

  test.concurrent.each([
    [["load"], "head -n 1"],
    [["load", "--json"], "true"],
    [["inspect", DIGITS, "--json", "--rows", "500"], "head -c 10"],
    [["load", "--help"], "true"],
  ])("%p into a pipe that closes: | %s", async (args, reader) => {
    const command = `${shellCommand(...args)} | ${reader}`;
    const { code, err } = await spawn(["sh", "-c", command]).ended;
    expect({ code, err }).toEqual({ code: 0, err: "" });
  });
});
