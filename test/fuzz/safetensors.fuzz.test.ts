/**
 * Hostile safetensors files: reading gives a sound description or a HeadraceError, soon, and whatever the file
 * claims. `HEADRACE_FUZZ_RUNS` sets the number of files (default 2,000); a failure prints its seed. Files that
 * once did harm are kept in `crashers/safetensors` and read on every run.
 */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { HeadraceError } from "../../src/errors.ts";
import { byteLengthOf } from "../../src/format/dtype.ts";
import { describeSafetensors } from "../../src/format/safetensors.ts";
import { parseSafetensorsIndex } from "../../src/format/safetensors-index.ts";
import type { ShardDescription } from "../../src/types.ts";
import { mutant, validFile } from "./safetensors-mutants.ts";

const RUNS = Number(process.env.HEADRACE_FUZZ_RUNS ?? 2000);
const CRASHERS = join(import.meta.dir, "crashers/safetensors");
const PYTHON = process.env.HEADRACE_PYTHON ?? "python3";

/** Reads as the library does, but refuses what a file of that length could not give. */
function describeBytes(file: Uint8Array): ShardDescription {
  return describeSafetensors((offset, length) => {
    expect(offset >= 0 && length >= 0 && offset + length <= file.length).toBe(true);
    return file.subarray(offset, offset + length);
  }, file.length);
}

/** The code that reading `file` gives, or "ok" after a look at the description's promises. */
function outcome(file: Uint8Array): string {
  const started = performance.now();
  let code = "ok";
  try {
    checkSound(describeBytes(file), file.length);
  } catch (error) {
    if (!(error instanceof HeadraceError)) throw error;
    expect(error.message).not.toMatch(/[\n\r]/);
    expect(error.message.length).toBeLessThan(1000);
    code = error.code;
  }
  expect(performance.now() - started).toBeLessThan(1000);
  return code;
}

function checkSound({ tensors, rows, notRows }: ShardDescription, fileLength: number): void {
  let at = 8;
  for (const { dtype, shape, range } of tensors!) {
    expect(range.start).toBeGreaterThanOrEqual(at);
    expect(range.end - range.start).toBe(byteLengthOf(dtype, shape));
    at = range.end;
  }
  expect(at).toBeLessThanOrEqual(fileLength);
  expect((rows === undefined) !== (notRows === undefined)).toBe(true);
  for (const { numRows, columns } of rows?.groups ?? []) {
    expect(numRows).toBeLessThanOrEqual(fileLength);
    for (const { values, offsets } of columns) {
      expect(values.end).toBeLessThanOrEqual(fileLength);
      if (offsets) expect(offsets.range.end - offsets.range.start).toBe((numRows + 1) * offsets.width);
    }
  }
}

describe("kept crashers", () => {
  const names = readdirSync(CRASHERS).filter((name) => name.endsWith(".safetensors"));
  expect(names.length).toBeGreaterThan(0);
  for (const name of names) {
    // A name is `CODE.what-it-is.safetensors`.
    test(name, () => {
      expect(outcome(readFileSync(join(CRASHERS, name)))).toBe(name.split(".")[0]!);
    });
  }
});

describe("fuzz", () => {
  test("valid files are read", () => {
    fc.assert(
      fc.property(validFile, (file) => expect(outcome(file)).toBe("ok")),
      { numRuns: Math.ceil(RUNS / 10) },
    );
  });

  test("mutated files", () => {
    const seen = new Map<string, number>();
    fc.assert(
      fc.property(mutant, (file) => {
        const code = outcome(file);
        seen.set(code, (seen.get(code) ?? 0) + 1);
      }),
      { numRuns: RUNS },
    );
    // The edits must reach past the JSON, or they prove nothing.
    if (RUNS >= 1000) expect([...seen.keys()].length).toBeGreaterThanOrEqual(8);
  });

  test("random bytes, as they are and as a header", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, isHeader) => {
        const file = new Uint8Array(bytes.length + 8);
        new DataView(file.buffer).setBigUint64(0, BigInt(bytes.length), true);
        file.set(bytes, 8);
        outcome(isHeader ? file : bytes);
      }),
      { numRuns: Math.ceil(RUNS / 4) },
    );
  });

  test("index files of mutated text", () => {
    const index = fc.record({
      metadata: fc.record({ total_size: fc.oneof(fc.nat(), fc.double(), fc.string()) }, { requiredKeys: [] }),
      weight_map: fc.dictionary(
        fc.string({ maxLength: 5 }),
        fc.constantFrom("a", "b/c", "../d", "/e", "f://g", ""),
      ),
    });
    fc.assert(
      fc.property(
        index,
        fc.nat(),
        fc.constantFrom("", "{", '"', ",", "\\", "\u0000"),
        (value, place, added) => {
          const text = JSON.stringify(value);
          const at = place % text.length;
          try {
            parseSafetensorsIndex(text.slice(0, at) + added + text.slice(at + (place % 3)));
          } catch (error) {
            expect(error).toBeInstanceOf(HeadraceError);
          }
        },
      ),
      { numRuns: Math.ceil(RUNS / 4) },
    );
  });
});

/** What the reference reader's message says, as our codes; the first whose text it holds. */
const REFERENCE: [string, string[]][] = [
  ["header too small", ["HEADER_TOO_SMALL"]],
  ["header too large", ["HEADER_TOO_LARGE"]],
  ["invalid header length", ["HEADER_LENGTH"]],
  ["invalid UTF-8", ["HEADER_NOT_UTF8"]],
  ["invalid JSON", ["HEADER_NOT_JSON", "HEADER_BAD_ENTRY", "UNKNOWN_DTYPE"]],
  ["invalid offset", ["TENSOR_OFFSETS"]],
  ["overflow", ["TENSOR_OVERFLOW"]],
  ["subbytes", ["TENSOR_MISALIGNED"]],
  ["invalid shape", ["TENSOR_SIZE"]],
  ["not fully covered", ["DATA_INCOMPLETE"]],
];

function referenceCodes(verdict: string | null): string[] {
  if (verdict === null) return ["ok"];
  return REFERENCE.find(([words]) => verdict.includes(words))?.[1] ?? [`unknown: ${verdict}`];
}

/** Where we differ from the reference by design: it takes the last of two keys, it reads a list as an entry,
 * it counts to 2^64, we to 2^53, and it looks at tensors that claim the same bytes in any order. */
function isByDesign(code: string, file: Uint8Array): boolean {
  if (code === "HEADER_DUPLICATE_KEY") return true;
  if (code === "HEADER_BAD_ENTRY") return messageOf(file).includes("must be an object with dtype");
  if (!code.startsWith("TENSOR_")) return false;
  const header = new TextDecoder().decode(file);
  const hasHugeNumber = /[[,]\s*\d{15,}\s*[\],]/.test(header);
  const offsets = [...header.matchAll(/"data_offsets"\s*:\s*(\[[^\]]*\])/g)].map((match) => match[1]);
  return hasHugeNumber || new Set(offsets).size < offsets.length;
}

function messageOf(file: Uint8Array): string {
  try {
    describeBytes(file);
    return "";
  } catch (error) {
    return (error as Error).message;
  }
}

const hasPython = Bun.spawnSync([PYTHON, "-c", "import safetensors"], { stderr: "ignore" }).exitCode === 0;
if (!hasPython) {
  console.log(`skipped: ${PYTHON} cannot import safetensors; HEADRACE_PYTHON may name one that can`);
}

test.skipIf(!hasPython)("mutated files are refused for the reason that the reference reader gives", () => {
  const seed = (Math.random() * 2 ** 31) | 0;
  const files = fc.sample(mutant, { seed, numRuns: RUNS });
  const input = Buffer.concat(
    files.flatMap((file) => {
      const prefix = Buffer.alloc(8);
      prefix.writeBigUInt64LE(BigInt(file.length));
      return [prefix, file];
    }),
  );
  const run = Bun.spawnSync([PYTHON, join(import.meta.dir, "safetensors_verdicts.py")], { stdin: input });
  const verdicts: (string | null)[] = JSON.parse(run.stdout.toString());
  expect(verdicts.length).toBe(files.length);
  const differing = files.flatMap((file, i) => {
    const ours = outcome(file);
    if (referenceCodes(verdicts[i]!).includes(ours) || isByDesign(ours, file)) return [];
    return [{ seed, ours, reference: verdicts[i], file: Buffer.from(file).toString("latin1") }];
  });
  expect(differing.slice(0, 3)).toEqual([]);
});
