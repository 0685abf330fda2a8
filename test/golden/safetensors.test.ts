/** Files of other implementations read by this one, and files of this one read by them. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SafeTensor } from "safetensors";
import { byteLengthOf, DTYPES } from "../../src/format/dtype.ts";
import { describeSafetensors } from "../../src/format/safetensors.ts";
import { encodeHeader, type HeaderOptions, type TensorSpec } from "../../src/format/safetensors-header.ts";
import type { DType, ShardDescription } from "../../src/types.ts";

const FOLDER = join(import.meta.dir, "files/safetensors");
const READ_BACK = join(import.meta.dir, "read_back_safetensors.py");
const PYTHON = process.env.HEADRACE_PYTHON ?? "python3";

interface Seen {
  readonly metadata: Record<string, string>;
  readonly tensors: Record<string, { dtype: string; shape: readonly number[]; sha256: string }>;
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function describeBytes(file: Uint8Array): ShardDescription {
  return describeSafetensors((offset, length) => file.subarray(offset, offset + length), file.length);
}

function seenByUs(file: Uint8Array): Seen {
  const { metadata, tensors } = describeBytes(file);
  const entries = tensors!.map(({ name, dtype, shape, range }) => {
    return [
      name,
      { dtype, shape: [...shape], sha256: sha256(file.subarray(range.start, range.end)) },
    ] as const;
  });
  return { metadata: { ...metadata }, tensors: Object.fromEntries(entries) };
}

const names = readdirSync(FOLDER)
  .filter((name) => name.endsWith(".safetensors"))
  .map((name) => name.slice(0, -".safetensors".length));

describe("files of Python's safetensors", () => {
  test("there are files", () => {
    expect(names.length).toBeGreaterThanOrEqual(10);
  });

  for (const name of names) {
    test(name, () => {
      const file = readFileSync(join(FOLDER, `${name}.safetensors`));
      const expected: Seen = JSON.parse(readFileSync(join(FOLDER, `${name}.json`), "utf8"));
      const seen = seenByUs(file);
      expect(Object.entries(seen.tensors).sort()).toEqual(Object.entries(expected.tensors).sort());
      expect(Object.entries(seen.metadata).sort()).toEqual(Object.entries(expected.metadata).sort());
    });
  }

  test("together hold all 22 dtypes", () => {
    const dtypes = names.flatMap((name) => {
      const file = readFileSync(join(FOLDER, `${name}.safetensors`));
      return describeBytes(file).tensors!.map((tensor) => tensor.dtype);
    });
    expect([...new Set(dtypes)].sort()).toEqual([...DTYPES].sort());
  });

  test("rows and ragged columns are seen as such", () => {
    const rows = (name: string) => describeBytes(readFileSync(join(FOLDER, `${name}.safetensors`))).rows!;
    const columns = (name: string) =>
      rows(name).schema.columns.map(({ name, dtype, shape, ragged }) => [name, dtype, shape, ragged]);
    expect(rows("rows").numRows).toBe(6);
    expect(columns("rows")).toEqual([
      ["embedding", "BF16", [8], false],
      ["image", "U8", [4, 4], false],
      ["label", "I32", [], false],
    ]);
    expect(rows("ragged").numRows).toBe(4);
    expect(columns("ragged")).toEqual([
      ["boxes", "F32", [4], true],
      ["id", "U64", [], false],
      ["tokens", "I32", [], true],
    ]);
  });

  // The reference writer pads its header to a multiple of 8 only, and so must an encoding that equals its bytes.
  for (const name of ["dtypes", "names", "scalars", "zero-size", "rows", "ragged"]) {
    test(`${name} is placed and worded by our encoder as by the reference writer`, () => {
      const file = readFileSync(join(FOLDER, `${name}.safetensors`));
      const specs = describeBytes(file).tensors!.map(({ name, dtype, shape, range }) => {
        return { name, dtype, shape, byteLength: range.end - range.start };
      });
      const { header } = encodeHeader(specs.reverse(), {}, { alignment: 8 });
      expect(Buffer.from(header).toString()).toBe(file.subarray(0, header.length).toString());
    });
  }
});

function fileOf(
  specs: readonly TensorSpec[],
  metadata?: Record<string, string>,
  options?: HeaderOptions,
): Uint8Array {
  const { header, dataOffsets, dataByteLength } = encodeHeader(specs, metadata, options);
  const file = new Uint8Array(header.length + dataByteLength);
  file.set(header);
  for (const [index, { start, end }] of dataOffsets.entries()) {
    for (let at = start; at < end; at++) file[header.length + at] = (at * 31 + index * 7 + 1) & 1;
  }
  return file;
}

function spec(name: string, dtype: DType, shape: number[]): TensorSpec {
  return { name, dtype, shape, byteLength: byteLengthOf(dtype, shape) };
}

const OURS: Record<string, Uint8Array> = {
  "dtypes.safetensors": fileOf(DTYPES.map((dtype) => spec(`t ${dtype}`, dtype, [2, 4]))),
  "odd.safetensors": fileOf(
    [
      spec("scalar", "F64", []),
      spec("empty", "F32", [0, 3]),
      spec("", "U8", [3]),
      spec("😀", "I16", [1]),
      spec('quote"\\\n', "U8", [2]),
    ],
    { format: "pt", note: 'line\n"two"', λ: "😀" },
  ),
  "paged.safetensors": fileOf(
    [spec("a", "F32", [3]), spec("b", "F32", [5]), spec("c", "U8", [1])],
    undefined,
    {
      alignment: 4096,
      pageAlignTensors: true,
    },
  ),
  "none.safetensors": fileOf([], undefined, { alignment: 8 }),
};

const probe = Bun.spawnSync([PYTHON, "-c", "import safetensors; print(safetensors.__version__)"], {
  stdout: "pipe",
  stderr: "ignore",
});
if (probe.exitCode !== 0) {
  console.log(`skipped: ${PYTHON} cannot import safetensors; HEADRACE_PYTHON may name one that can`);
}

describe("our files", () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "headrace-golden-"));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test.skipIf(probe.exitCode !== 0)("are read by Python's safetensors, byte for byte", () => {
    for (const [name, file] of Object.entries(OURS)) writeFileSync(join(folder, name), file);
    const run = Bun.spawnSync([PYTHON, READ_BACK, folder], { stdout: "pipe", stderr: "pipe" });
    expect(run.stderr.toString()).toBe("");
    const { files }: { files: Record<string, Seen> } = JSON.parse(run.stdout.toString());
    expect(Object.keys(files).sort()).toEqual(Object.keys(OURS).sort());
    for (const [name, file] of Object.entries(OURS)) {
      const ours = seenByUs(file);
      const { metadata, tensors } = files[name]!;
      const padding = Object.keys(tensors).filter((tensor) => /^__pad_\d+__$/.test(tensor));
      expect(padding.length).toBe(name === "paged.safetensors" ? 2 : 0);
      for (const tensor of padding) delete tensors[tensor];
      expect({ metadata, tensors }).toEqual(ours);
    }
  });

  // That reader takes `__metadata__` for a tensor, and reads no offset of a view into its buffer.
  for (const name of ["dtypes.safetensors", "paged.safetensors", "none.safetensors"]) {
    test(`${name} is read alike by the npm package`, () => {
      const file = OURS[name]!;
      const reader = new SafeTensor(file);
      const { tensors } = describeBytes(file);
      for (const { name: tensor, dtype, shape, range } of tensors!) {
        expect(reader.metadata.get(tensor)).toEqual({ dtype, shape, data_offsets: [range.start, range.end] });
        expect(sha256(reader.getTensor(tensor))).toBe(sha256(file.subarray(range.start, range.end)));
      }
      const theirs = [...reader.metadata.keys()].filter((tensor) => !/^__pad_\d+__$/.test(tensor));
      expect(theirs.sort()).toEqual(tensors!.map((tensor) => tensor.name).sort());
    });
  }
});
