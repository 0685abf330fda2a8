/** Kernels as a C++ program that watches every access: nothing past the end of a range is read or written, not even
 * within a word that has some of its bytes. */
import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checksumKernel } from "../../../src/kernels/checksum.ts";
import { moveKernel } from "../../../src/kernels/move.ts";
import { checkedHeader, compiler } from "./cxx.ts";

const FLAGS = ["-std=c++14", "-O1", "-fsanitize=address,undefined", "-fno-sanitize=pointer-overflow"];

/** What the program printed, and how it ended. */
function runProgram(text: string): { said: string; exitCode: number | null } {
  const folder = mkdtempSync(join(tmpdir(), "headrace-sanitizer-"));
  try {
    const source = join(folder, "program.cpp");
    const program = join(folder, "program");
    writeFileSync(source, text);
    const made = Bun.spawnSync([compiler!, ...FLAGS, "-fno-sanitize-recover=all", "-o", program, source]);
    if (made.exitCode !== 0) return { said: `does not compile: ${made.stderr}`, exitCode: made.exitCode };
    const ran = Bun.spawnSync([program], { env: { ASAN_OPTIONS: "detect_leaks=0" } });
    return { said: `${ran.stdout}${ran.stderr}`, exitCode: ran.exitCode };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const works = compiler !== null && runProgram("int main() { return 0; }\n").exitCode === 0;
if (!works) console.warn("kernels under a sanitizer: left out, the C++ compiler has none");

const HEAD = "#include <stdlib.h>\n#include <stdio.h>\n";

const CHECKSUM = `
int main() {
  for (uint32_t phase = 0; phase < 16; phase++) {
    for (uint32_t length = 0; length < 150; length++) {
      uint8_t *memory = (uint8_t *)calloc(1, phase + length);
      uint32_t *sums = (uint32_t *)calloc(2, 4);
      ChecksumConstants c = {length, 0};
      for (uint32_t i = 0; i < 5; i++) checksum(memory + phase, sums, c, i, 3, 0, i, 1);
      free(memory);
      free(sums);
    }
  }
  puts("done");
}
`;

const MOVE = `
int main() {
  for (uint32_t phases = 0; phases < 256; phases++) {
    for (uint32_t length = 0; length < 90; length++) {
      uint32_t from = phases % 16, to = phases / 16;
      uint8_t *source = (uint8_t *)calloc(1, from + length), *target = (uint8_t *)calloc(1, to + length);
      uint64_t *addresses = (uint64_t *)calloc(2, 8), *lengths = (uint64_t *)calloc(1, 8);
      addresses[0] = (uint64_t)(source + from);
      addresses[1] = (uint64_t)(target + to);
      lengths[0] = length;
      MoveConstants c = {1, 2};
      for (uint32_t i = 0; i < 6; i++) move_bytes(addresses, lengths, c, i, 4, 0, i, 1);
      free(source);
      free(target);
      free(addresses);
      free(lengths);
    }
  }
  puts("done");
}
`;

describe.skipIf(!works)("under a sanitizer", () => {
  test.each([
    ["checksum", HEAD + checkedHeader + checksumKernel.text + CHECKSUM],
    ["move_bytes", HEAD + checkedHeader + moveKernel.text + MOVE],
  ])(
    "%s stays within its ranges",
    (_, text) => {
      expect(runProgram(text)).toEqual({ said: "done\n", exitCode: 0 });
    },
    60_000,
  );

  test("a read of one byte too many is seen", () => {
    const text = HEAD + checkedHeader + moveKernel.text!.replaceAll("+ i < last", "+ i <= last") + MOVE;
    expect(runProgram(text).said).toContain("heap-buffer-overflow");
  }, 60_000);
});
