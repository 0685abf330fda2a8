/** The CUDA benchmark's own parts, and all of it over the mock of the driver: figures mean nothing there, the script
 * and its checks do. */
import { afterAll, describe, expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checksumOf } from "../../src/kernels/checksum.ts";
import { batchSums, residentPart, rows, weights } from "../bench/cuda/data.ts";
import { argumentsFor, parseBytes, parseOptions, USAGE, UsageError } from "../bench/cuda/options.ts";
import { allowForMachine, type CudaRow, interleave, judge, smallest } from "../bench/cuda/rounds.ts";
import { Team } from "../bench/cuda/team.ts";
import { ROW_BYTES } from "../bench/data.ts";
import { buildCudaMock } from "../cuda-mock/mock.ts";

const MIB = 2 ** 20;
const SCRIPT = join(import.meta.dir, "../bench/cuda/bench.ts");

const folder = mkdtempSync(join(tmpdir(), "headrace-bench-cuda-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("options", () => {
  test("sizes have units, and become whole tensors", () => {
    expect(parseBytes("--size", "8GiB")).toBe(8 * 2 ** 30);
    expect(parseBytes("--size", "1.5 MB")).toBe(1_500_000);
    expect(parseBytes("--size", "77")).toBe(77);
    expect(parseOptions(["--size", "600KiB"]).sizeBytes).toBe(MIB);
    expect(parseOptions([])).toMatchObject({ sizeBytes: 8 * 2 ** 30, repeats: 7, device: "cuda", rows: [] });
    expect(parseOptions(["--quick"])).toMatchObject({ sizeBytes: 64 * MIB, repeats: 3 });
  });

  test("a process of its own gets the same", () => {
    const given = ["--size", "3MiB", "--repeats", "2", "--data", "x", "--trace", "y", "--quick"];
    const options = parseOptions([...given, "--device", "host"]);
    const own = parseOptions(argumentsFor(options, "cuda.busy", 1));
    expect(own).toEqual({ ...options, case: "cuda.busy", ordinal: 1 });
  });

  test.each([
    [["--size", "8 furlongs"]],
    [["--size", "0"]],
    [["--repeats", "0"]],
    [["--repeats", "1.5"]],
    [["--ordinal", "-1"]],
    [["--no-such"]],
    [["stray"]],
  ])("%p is refused", (args) => {
    expect(() => parseOptions(args)).toThrow(UsageError);
  });
});

test("--help prints the usage and ends with 0, also beside others; a bad option with 64", () => {
  for (const help of [["--help"], ["-h"], ["--repeats", "0", "--help"]]) {
    const { exitCode, stdout, stderr } = Bun.spawnSync([process.execPath, SCRIPT, ...help]);
    expect({ exitCode, out: stdout.toString(), err: stderr.toString() }).toEqual({
      exitCode: 0,
      out: `${USAGE}\n`,
      err: "",
    });
  }
  expect(Bun.spawnSync([process.execPath, SCRIPT, "--halp"]).exitCode).toBe(64);
});

describe("rounds", () => {
  test("ten times the peer is asked for, or five where the bare sweeps of the run allow no ten", () => {
    const row = (name: string, theirs: number, ours = theirs) =>
      judge({ name, unit: "GB/s", against: "x", note: "n", atLeast: 10 }, [ours], [theirs]);
    const limits = [row("cuda.read.link", 47), row("cuda.map.first", 33)];
    const judged = (...rows: CudaRow[]) =>
      allowForMachine(rows).map(({ name, atLeast, met }) => `${name} ${atLeast} ${met}`);
    const few = row("cuda.peer.safetensors", 5, 30);
    expect(judged(...limits, few).at(-1)).toBe("cuda.peer.safetensors 5 true");
    expect(judged(...limits, row("cuda.peer.safetensors", 4, 30)).at(-1)).toBe(
      "cuda.peer.safetensors 10 false",
    );
    const bounded = [{ ...limits[0]!, ceiling: 44 }, limits[1]!];
    const peer = row("cuda.peer.safetensors", 4.5, 30);
    expect(judged(...limits, peer).at(-1)).toBe("cuda.peer.safetensors 10 false");
    expect(judged(...bounded, peer).at(-1)).toBe("cuda.peer.safetensors 5 true");
    expect(judged(few)).toEqual(["cuda.peer.safetensors 10 false"]);
    expect(judged(...limits, row("cuda.busy", 5)).at(-1)).toBe("cuda.busy 10 false");
  });

  test("sides take turns, each round another first, and warm-ups do not count", async () => {
    const order: string[] = [];
    const side = (name: string, figure: number) => () => {
      order.push(name);
      return figure + order.length;
    };
    const figures = await interleave("turns", { a: side("a", 0), b: side("b", 100) }, 2);
    expect(order).toEqual(["a", "b", "a", "b", "b", "a"]);
    expect(figures).toEqual({ a: [3, 6], b: [104, 105] });
  });

  test("a row is met from the ratio on that is asked for, against the smaller limit", () => {
    const text = { name: "r", unit: "GB/s", against: "x", note: "", atLeast: 0.9 };
    const limits = { link: [10, 11, 12], registration: [9, 30, 31] };
    expect(smallest(limits, ["link", "registration"])).toBe("link");
    const met = judge(text, [10, 10, 10], limits.link);
    expect(met).toMatchObject({ met: true, min: 10, max: 10, theirMedian: 11, theirMin: 10, theirMax: 12 });
    expect(judge(text, [9, 9.8, 12], limits.link).met).toBe(false);
  });
});

describe("data", () => {
  test("checksums are those of the bytes in the files, by parts or whole", async () => {
    const data = await rows(folder, 40 * MIB);
    const bytes = readFileSync(data.paths[0]!).subarray(data.dataOffset);
    expect(bytes.length).toBe(data.numRows * ROW_BYTES);
    expect(data.sums).toEqual({ x: checksumOf(bytes) });
    expect(data.byteLength).toBe(statSync(data.paths[0]!).size);
    expect(residentPart(data.paths)).toBeGreaterThan(0.5);

    using team = new Team(2);
    const ids = Float64Array.from({ length: 50 }, (_, i) => (i * 7919) % data.numRows);
    const shared = new Float64Array(new SharedArrayBuffer(ids.byteLength));
    shared.set(ids);
    const rowsOf = (some: Float64Array) =>
      Buffer.concat([...some].map((id) => bytes.subarray(id * ROW_BYTES, (id + 1) * ROW_BYTES)));
    const expected = [0, 20, 40].map((first) => checksumOf(rowsOf(ids.subarray(first, first + 20))));
    expect(await batchSums(team, data, shared, 20)).toEqual(expected);
  });

  test("is found the next time, and made again where a file is not whole", async () => {
    const data = await weights(folder, 2 * MIB);
    expect(Object.keys(data.sums)).toHaveLength(4 * (16 + 3));
    expect(new Set(Object.values(data.sums)).size).toBe(4 * (16 + 3));
    const changed = statSync(data.paths[0]!).mtimeMs;
    expect(await weights(folder, 2 * MIB)).toEqual(data);
    expect(statSync(data.paths[0]!).mtimeMs).toBe(changed);
    rmSync(data.paths[3]!);
    expect(await weights(folder, 2 * MIB)).toEqual(data);
    expect(statSync(data.paths[3]!).size).toBeGreaterThan(MIB / 2);
  });
});

interface Results {
  readonly gpu: string;
  readonly rows: readonly CudaRow[];
  readonly leftOut: readonly { readonly name: string; readonly reason: string }[];
  readonly failures: readonly { readonly name: string; readonly error: string }[];
}

/** Runs the script on tiny data, without peers. */
async function bench(env: Record<string, string>, ...args: string[]) {
  const out = join(folder, "cuda.json");
  rmSync(out, { force: true });
  const child = Bun.spawn(
    [
      process.execPath,
      SCRIPT,
      "--quick",
      "--size",
      "2MiB",
      "--repeats",
      "1",
      "--data",
      folder,
      "--out",
      out,
      ...args,
    ],
    {
      env: { ...process.env, HEADRACE_PEERS_PYTHON: join(folder, "no-python"), ...env },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    },
  );
  const [said, errors] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  const code = await child.exited;
  const results = (await Bun.file(out).exists()) ? ((await Bun.file(out).json()) as Results) : undefined;
  return { code, said, errors, results };
}

const mock = buildCudaMock();
const missing = "missing" in mock ? ` (left out: ${mock.missing})` : "";
const libraries =
  "missing" in mock
    ? {}
    : {
        HEADRACE_CUDA_LIBRARY: mock.path,
        HEADRACE_NVRTC_LIBRARY: mock.path,
        HEADRACE_CUFILE_LIBRARY: mock.path,
      };

describe("the script", () => {
  test.skipIf("missing" in mock)(
    `gives every row over the mock, and says why a peer's is left out${missing}`,
    async () => {
      const { code, said, errors, results } = await bench(libraries);
      expect(results?.failures, errors).toEqual([]);
      expect(code).toBe(0);
      expect(results!.gpu).toStartWith("Mock GPU");
      expect(results!.rows.map(({ name }) => name)).toEqual([
        "cuda.map.link",
        "cuda.map.first",
        "cuda.read.link",
        "cuda.busy",
        "cuda.two-gpus.0",
        "cuda.two-gpus.1",
        "cuda.two-gpus.one-process.0",
        "cuda.two-gpus.one-process.1",
      ]);
      for (const { name, ours, theirs, ratio, met, atLeast } of results!.rows) {
        expect(ours.length, name).toBe(1);
        expect(Math.min(...ours, ...theirs), name).toBeGreaterThan(0);
        expect(ratio, name).toBeCloseTo(ours[0]! / theirs[0]!, 6);
        expect(met, name).toBe(ratio >= atLeast);
        expect(said).toContain(name);
      }
      expect(results!.leftOut.map(({ name }) => name)).toEqual([
        "cuda.peer.safetensors",
        "cuda.peer.dataloader",
      ]);
      for (const { reason } of results!.leftOut) expect(reason).toMatch(/no python3.*ours alone: [0-9.]/);
    },
    180_000,
  );

  test.skipIf("missing" in mock)(
    `fails a row whose bytes are not those that were summed up${missing}`,
    async () => {
      const data = await weights(folder, 2 * MIB);
      const path = data.paths[2]!;
      const fd = openSync(path, "r+");
      writeSync(fd, Uint8Array.of(7), 0, 1, statSync(path).size - 2000);
      closeSync(fd);
      const { code, errors, results } = await bench(libraries, "--rows", "cuda.map.link");
      expect(code).toBe(1);
      expect(results!.rows).toEqual([]);
      expect(results!.failures.map(({ name }) => name)).toEqual(["cuda.map.link"]);
      expect(errors).toMatch(/tensor block\.2\.\S+ has the checksum [0-9a-f]{16} on the device/);
      rmSync(path);
    },
    60_000,
  );

  test("says where there is no GPU, and which rows there are", async () => {
    const none = await bench({ HEADRACE_CUDA_LIBRARY: join(folder, "no-libcuda.so.1") });
    expect(none).toMatchObject({ code: 69, results: undefined });
    expect(none.errors).toContain("device cuda:");
    const unknown = await bench({}, "--rows", "cuda.maps");
    expect(unknown.code).toBe(64);
    expect(unknown.errors).toContain("cuda.map.link, cuda.map.first");
  });
});
