/** The parts of the benchmark of inference, and the script where there is no GPU: its figures mean nothing here. */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generate, openDevice, openLlama, openLoader } from "../../src/index.ts";
import { UsageError } from "../bench/cuda/options.ts";
import {
  makeModel,
  makeRequests,
  parametersOf,
  SMOLLM2_135M,
  TINY,
  weightBytes,
} from "../bench/infer/data.ts";
import { argumentsFor, parseOptions, USAGE } from "../bench/infer/options.ts";
import { requestsOf, round } from "../bench/infer/ours.ts";

setDefaultTimeout(60_000);

const SCRIPT = join(import.meta.dir, "../bench/infer/bench.ts");
const folder = mkdtempSync(join(tmpdir(), "headrace-bench-infer-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("options", () => {
  test("have defaults, and a process of its own gets the same", () => {
    expect(parseOptions([])).toMatchObject({ device: "cuda", requests: 256, slots: 256, repeats: 5 });
    const options = parseOptions([
      "--quick",
      "--device",
      "host",
      "--limit",
      "7",
      "--data",
      "x",
      "--outputs",
      "y",
    ]);
    expect(options).toMatchObject({
      requests: 32,
      slots: 16,
      repeats: 2,
      limitSeconds: 7,
      outputFolder: "y",
    });
    expect(parseOptions(argumentsFor(options, "infer.host"))).toEqual({ ...options, case: "infer.host" });
  });

  test.each([[["--repeats", "0"]], [["--no-such"]], [["stray"]]])("%p is refused", (args) => {
    expect(() => parseOptions(args)).toThrow(UsageError);
  });
});

describe("the data", () => {
  test("has the shape of SmolLM2-135M", () => {
    expect(parametersOf(SMOLLM2_135M)).toBe(134_515_008);
  });

  test("is a model that runs, with weights of the deviation they should have", async () => {
    const model = makeModel(join(folder, "model"), TINY);
    expect(weightBytes(model)).toBe(2 * parametersOf(TINY));
    await using device = openDevice("host");
    await using loader = await openLoader(model, { device, view: "tensors" });
    for await (using batch of loader) {
      for (const { name, view } of batch.columns.values()) {
        if (!name.endsWith("embed_tokens.weight")) continue;
        const values = Float32Array.from(
          view as Uint16Array,
          (bits) => new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!,
        );
        const square = values.reduce((sum, value) => sum + value * value, 0) / values.length;
        expect(Math.sqrt(square) * Math.sqrt(TINY.hidden)).toBeCloseTo(1, 1);
      }
    }
    const requests = makeRequests(folder, TINY.vocab, 4);
    const expected = requests.maxNewTokens.reduce((sum, count) => sum + count, 0);
    const engine = await openLlama(model, device, { slots: 4 });
    expect((await round(generate(requestsOf(requests), engine), expected)).outputTokens).toBe(expected);
    await engine.close();
  });

  test("has requests of the lengths that it says, the same each time", () => {
    const { prompts, maxNewTokens, path } = makeRequests(folder, 1000, 4000);
    const lengths = prompts.map(({ length }) => length);
    const mean = (values: ArrayLike<number>) => Array.from(values).reduce((a, b) => a + b, 0) / values.length;
    expect([Math.min(...lengths), Math.max(...lengths)]).toEqual([16, 256]);
    expect(mean(lengths)).toBeCloseTo(136, -1);
    // Of an exponential distribution of mean 96 that is cut at 512.
    expect(mean(maxNewTokens)).toBeCloseTo(96, -1);
    expect([Math.min(...maxNewTokens), Math.max(...maxNewTokens)]).toEqual([1, 512]);
    const before = readFileSync(path);
    makeRequests(folder, 1000, 4000);
    expect(readFileSync(path).equals(before)).toBe(true);
  });
});

test("the script runs a row in a process of its own, and writes what came of it", () => {
  const out = join(folder, "infer.json");
  const args = ["--quick", "--device", "host", "--rows", "infer.step", "--data", folder, "--out", out];
  const { exitCode, stdout } = Bun.spawnSync([process.execPath, SCRIPT, ...args], { stderr: "ignore" });
  expect([exitCode, stdout.toString()]).toEqual([0, expect.stringContaining("infer.step")]);
  const { rows, details } = JSON.parse(readFileSync(out, "utf8"));
  expect(rows).toHaveLength(1);
  expect(details["infer.step"].sizes.map(({ slots }: { slots: number }) => slots)).toEqual([1, 4, 16]);
  expect(details["infer.step"].parts.length).toBeGreaterThan(3);
});

test("--help prints the usage; a bad option ends with 64", () => {
  const help = Bun.spawnSync([process.execPath, SCRIPT, "--help"]);
  expect([help.exitCode, help.stdout.toString()]).toEqual([0, `${USAGE}\n`]);
  expect(Bun.spawnSync([process.execPath, SCRIPT, "--halp"]).exitCode).toBe(64);
});
