/**
 * Safetensors files made to do harm, each with the code that must answer it.
 *
 *     bun test/attacks/safetensors/attacks.ts FOLDER
 *
 * writes them as files, to try them on a command or on another reader.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ErrorCode } from "../../../src/errors.ts";

export interface Attack {
  readonly name: string;
  /** What it would do to a careless reader. */
  readonly harm: string;
  /** `ok` where the file is right, however odd. */
  readonly code: ErrorCode | "ok";
  make(): Uint8Array;
}

function file(header: string | Uint8Array, data: Uint8Array | number = 0, claimed?: bigint): Uint8Array {
  const text = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const bytes = typeof data === "number" ? new Uint8Array(data) : data;
  const result = new Uint8Array(8 + text.length + bytes.length);
  new DataView(result.buffer).setBigUint64(0, claimed ?? BigInt(text.length), true);
  result.set(text, 8);
  result.set(bytes, 8 + text.length);
  return result;
}

function entry(name: string, offsets: string, shape = "[4]", dtype = "U8"): string {
  return `"${name}":{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}`;
}

const ONE = entry("a", "[0,4]");

function many(count: number, one: (index: number) => string): string {
  return `{${Array.from({ length: count }, (_, index) => one(index)).join(",")}}`;
}

export const ATTACKS: readonly Attack[] = [
  {
    name: "header-of-exabytes",
    harm: "allocates what the first eight bytes claim",
    code: "HEADER_TOO_LARGE",
    make: () => file("{}", 0, 2n ** 64n - 1n),
  },
  {
    name: "header-length-wraps",
    harm: "8 + N wraps around 64 bits to a small number",
    code: "HEADER_TOO_LARGE",
    make: () => file("{}", 0, 2n ** 64n - 8n),
  },
  {
    name: "header-of-gigabytes",
    harm: "parses 3 GB of JSON",
    code: "HEADER_TOO_LARGE",
    make: () => file("{}", 0, 3_000_000_000n),
  },
  {
    name: "header-beyond-file",
    harm: "reads past the end of the file",
    code: "HEADER_LENGTH",
    make: () => file(`{${ONE}}`, 4, 100_000_000n),
  },
  {
    name: "overlap-amplification",
    harm: "100,000 tensors over one range of 160 kB become 16 GB",
    code: "TENSOR_OFFSETS",
    make: () =>
      file(
        many(100_000, (i) => entry(`t${i}`, "[0,160000]", "[160000]")),
        160_000,
      ),
  },
  {
    name: "overlap-by-one",
    harm: "two tensors share a byte",
    code: "TENSOR_OFFSETS",
    make: () => file(`{${ONE},${entry("b", "[3,7]")}}`, 7),
  },
  {
    name: "offsets-outside",
    harm: "reads past the end of the file",
    code: "DATA_INCOMPLETE",
    make: () => file(`{${entry("a", "[0,1000000000000]", "[1000000000000]")}}`, 4),
  },
  {
    name: "offsets-negative",
    harm: "reads in front of the data",
    code: "HEADER_BAD_ENTRY",
    make: () => file(`{${entry("a", "[-4,0]")}}`, 4),
  },
  {
    name: "offsets-float",
    harm: "rounds an offset",
    code: "HEADER_BAD_ENTRY",
    make: () => file(`{${entry("a", "[0,4.000000000000000001]")}}`, 4),
  },
  {
    name: "offsets-beyond-doubles",
    harm: "two offsets become one number: 2^53 and 2^53 + 1",
    code: "TENSOR_OFFSETS",
    make: () =>
      file(
        `{${entry("a", "[0,9007199254740992]", "[9007199254740992]")},${entry("b", "[9007199254740993,9007199254740997]")}}`,
        4,
      ),
  },
  {
    name: "offsets-swapped",
    harm: "a length below zero",
    code: "TENSOR_OFFSETS",
    make: () => file(`{${entry("a", "[0,4]")},${entry("b", "[4,0]")}}`, 4),
  },
  {
    name: "shape-overflow",
    harm: "2^32 times 2^32 is 0 in 64 bits",
    code: "TENSOR_OVERFLOW",
    make: () => file(`{${entry("a", "[0,0]", "[4294967296,4294967296]")}}`),
  },
  {
    name: "shape-larger-than-bytes",
    harm: "a view past its tensor",
    code: "TENSOR_SIZE",
    make: () => file(`{${entry("a", "[0,4]", "[4]", "F64")}}`, 4),
  },
  {
    name: "shape-of-millions",
    harm: "a million dimensions, each a number to keep",
    code: "HEADER_BAD_ENTRY",
    make: () => file(`{${entry("a", "[0,1]", `[${"1,".repeat(1_000_000)}1]`)}}`, 1),
  },
  {
    name: "deep-nesting",
    harm: "recursion runs out of stack",
    code: "HEADER_NOT_JSON",
    make: () => file(`{"a":{"x":${"[".repeat(2_000_000)}`),
  },
  {
    name: "deep-objects",
    harm: "recursion runs out of stack",
    code: "HEADER_NOT_JSON",
    make: () => file('{"a":'.repeat(500_000)),
  },
  {
    name: "prototype",
    harm: "a key that sets the prototype of what it is stored in",
    code: "ok",
    make: () => file(`{${entry("__proto__", "[0,4]")},"__metadata__":{"__proto__":"x"}}`, 4),
  },
  {
    name: "duplicate-tensor",
    harm: "a scanner sees the first, a loader the last",
    code: "HEADER_DUPLICATE_KEY",
    make: () => file(`{${ONE},${entry("a", "[0,4]", "[2,2]")}}`, 4),
  },
  {
    name: "duplicate-escaped",
    harm: "the same, and unlike as text",
    code: "HEADER_DUPLICATE_KEY",
    make: () => file(`{${ONE},${ONE.replace('"a"', '"\\u0061"')}}`, 4),
  },
  {
    name: "duplicate-field",
    harm: "a scanner sees one dtype, a loader the other",
    code: "HEADER_DUPLICATE_KEY",
    make: () => file('{"a":{"dtype":"U8","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4),
  },
  {
    name: "polyglot-behind",
    harm: "an archive behind the last tensor",
    code: "DATA_INCOMPLETE",
    make: () => file(`{${ONE}}`, new TextEncoder().encode("dataPK\u0003\u0004 and an archive")),
  },
  {
    name: "polyglot-hole",
    harm: "bytes that no tensor shows",
    code: "TENSOR_OFFSETS",
    make: () => file(`{${ONE},${entry("b", "[1004,1008]")}}`, 1008),
  },
  {
    name: "polyglot-in-header",
    harm: "a script behind the header's object",
    code: "HEADER_NOT_JSON",
    make: () => file(`{${ONE}}\n#!/bin/sh\n`, 4),
  },
  {
    name: "byte-order-mark",
    harm: "some readers skip it, some do not",
    code: "HEADER_NOT_JSON",
    make: () => file("\ufeff{}"),
  },
  {
    name: "overlong-utf8",
    harm: "a slash that no check of bytes sees",
    code: "HEADER_NOT_UTF8",
    make: () => file(Uint8Array.of(0x7b, 0x22, 0xc0, 0xaf, 0x22, 0x3a, 0x7b, 0x7d, 0x7d)),
  },
  {
    name: "number-of-millions",
    harm: "converting a number takes time that grows with the square of its digits",
    code: "TENSOR_OVERFLOW",
    make: () => file(`{${entry("a", "[0,4]", `[${"9".repeat(5_000_000)}]`)}}`, 4),
  },
  {
    name: "string-of-millions",
    harm: "an error message as long as the file",
    code: "UNKNOWN_DTYPE",
    make: () => file(`{"${"n".repeat(1_000_000)}":{"dtype":"${"\\n".repeat(1_000_000)}"}}`),
  },
  {
    name: "rows-without-bytes",
    harm: "9,007,199,254,740,991 rows in a file of a hundred bytes",
    code: "ok",
    make: () => file(`{${entry("a", "[0,0]", "[9007199254740991,0]")}}`),
  },
  {
    name: "empty-tensors",
    harm: "100,000 tensors of no bytes at one place",
    code: "ok",
    make: () => file(many(100_000, (i) => entry(`t${i}`, "[0,0]", "[0]"))),
  },
];

if (import.meta.main) {
  const folder = process.argv[2];
  if (folder === undefined) {
    console.error("usage: bun test/attacks/safetensors/attacks.ts FOLDER");
    process.exit(2);
  }
  mkdirSync(folder, { recursive: true });
  for (const { name, make } of ATTACKS) writeFileSync(join(folder, `${name}.safetensors`), make());
}
