/** What the writer refuses, and how it ends where folder or disk fail it. */
import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { type OutputColumn, openWriter, type WriterOptions } from "../../src/index.ts";
import { expectCode, useTempDir } from "./helpers.ts";
import { optionsOf, outputOf, WIDTH } from "./writeback-job.ts";

const temp = useTempDir();
const COUNTS = [6, 0, 8];

describe("refuses", () => {
  test("rows that are none, or come twice, and changes nothing by it", async () => {
    const writer = await openWriter(temp("out"), optionsOf(COUNTS));
    writer.add(outputOf(6));
    for (const row of [-1, 14, 0.5, Number.NaN])
      await expectCode("OUT_OF_RANGE", () => writer.add({ ...outputOf(1), row }), row);
    await expectCode("OUT_OF_RANGE", () => writer.addRows(5, 2, outputOf(5)), "[5, 7)");
    await expectCode("BAD_OPTION", () => writer.add(outputOf(6)), "row 6", "has its output already");
    for (const row of [7, 8, 9, 10, 11, 12, 13]) writer.add(outputOf(row));
    await writer.flush();
    await expectCode("BAD_OPTION", () => writer.add(outputOf(7)), "row 7", "has its output already");
    expect(writer.summary.rows).toBe(8);
    await writer.close();
    await expectCode("CLOSED", () => writer.add(outputOf(1)));
    await expectCode("CLOSED", () => writer.flush());
    await writer.close();
  });

  test("values that do not fit their columns, and takes the row afterwards", async () => {
    const writer = await openWriter(temp("out"), optionsOf([1]));
    const wrong: readonly (readonly [string, unknown, string])[] = [
      ["tokens", [1, 2], "Int32Array"],
      ["tokens", new Float32Array(2), "not Float32Array"],
      ["tokens", undefined, "not nullable"],
      ["text", 5, "string"],
      ["embedding", new Float32Array(WIDTH + 1), `${4 * WIDTH + 4} bytes`],
      ["score", 40_000, "no I16"],
      ["score", 0.5, "no I16"],
      ["score", "1", "no I16"],
      ["embedding", { buffer: { gpuAddress: 1, byteLength: 100 }, byteOffset: 0 }, "no device"],
      ["embedding", { buffer: { gpuAddress: 1, byteLength: 19 }, byteOffset: 0 }, "buffer of 19"],
      ["embedding", { buffer: { gpuAddress: 1, byteLength: 99 }, byteOffset: 0, length: 4 }, "4 elements"],
      ["tokens", { buffer: { gpuAddress: 1, byteLength: 99 }, byteOffset: 0 }, "fixed size"],
    ];
    for (const [name, value, text] of wrong) {
      const code = text === "buffer of 19" ? "OUT_OF_RANGE" : "BAD_OPTION";
      await expectCode(code, () => writer.add({ ...outputOf(0), [name]: value }), text, "row 0");
    }
    await writer.add(outputOf(0));
    await writer.close();
    expect(writer.summary).toMatchObject({ rows: 1, complete: true });
  });

  test("options out of their bounds", async () => {
    const columns = (...some: OutputColumn[]) => ({ columns: some });
    const bad: readonly (readonly [Partial<WriterOptions>, string])[] = [
      [{ format: "csv" as never }, "format is csv"],
      [{ order: "any" as never }, "order is any"],
      [{ fingerprint: "../../x" }, "fingerprint"],
      [{ shards: [{ name: "a", start: 5, end: 3 }] }, "shards[0]"],
      [
        {
          shards: [
            { name: "a", start: 0, end: 3 },
            { name: "b", start: 2, end: 4 },
          ],
        },
        "shards[1]",
      ],
      [
        {
          shards: [
            { name: "a", start: 0, end: 3 },
            { name: "a", start: 3, end: 4 },
          ],
        },
        "given twice",
      ],
      [{ syncBytes: 0 }, "syncBytes is 0"],
      [{ maxBatchBytes: 2 ** 31 }, "2147483647"],
      [{ errorColumn: "tokens" }, "errorColumn"],
      [columns({ name: "row", kind: "utf8" }), "reserved"],
      [columns({ name: "a", kind: "utf8" }, { name: "a", kind: "utf8" }), "twice"],
      [columns({ name: "__a", kind: "utf8" }), "__"],
      [columns({ name: "a", kind: "list" }), "no dtype"],
      [columns({ name: "a", kind: "map" as never }), "of kind map"],
      [columns({ name: "a", kind: "fixed", dtype: "F32", length: 0 }), "length 0"],
      [columns({ name: "error", kind: "utf8" }), "nullable"],
    ];
    for (const [more, text] of bad) {
      await expectCode("BAD_OPTION", () => openWriter(temp("out"), optionsOf(COUNTS, more)), text);
    }
    const bf16 = columns({ name: "a", kind: "list", dtype: "BF16" });
    await expectCode(
      "UNSUPPORTED_TYPE",
      () => openWriter(temp("out"), optionsOf(COUNTS, bf16)),
      "BF16",
      "safetensors",
    );
    const f4 = columns({ name: "a", kind: "list", dtype: "F4" });
    await expectCode("UNSUPPORTED_TYPE", () => openWriter(temp("out"), optionsOf(COUNTS, f4)), "whole bytes");
    expect(existsSync(temp("out"))).toBe(false);
  });
});

describe("fails as documented, and goes on afterwards:", () => {
  test("a file where the folder should be, or above it", async () => {
    writeFileSync(temp("file"), "x");
    await expectCode("IO_ERROR", () => openWriter(temp("file"), optionsOf(COUNTS)), temp("file"));
    await expectCode(
      "IO_ERROR",
      () => openWriter(temp("file", "below"), optionsOf(COUNTS)),
      temp("file", "below"),
    );
    expect(readFileSync(temp("file"), "utf8")).toBe("x");
  });

  test("the folder goes away under the writer", async () => {
    const writer = await openWriter(temp("out"), optionsOf(COUNTS));
    writer.add(outputOf(1));
    await writer.flush();
    renameSync(temp("out"), temp("moved"));
    writer.add(outputOf(2));
    await expectCode("IO_ERROR", () => writer.flush(), temp("out"), "ENOENT");
    await expectCode("IO_ERROR", () => writer.add(outputOf(3)));
    await writer.close();
    expect(existsSync(temp("out"))).toBe(false);
  });

  test("a disk that is full", async () => {
    const mount = temp("tiny");
    mkdirSync(mount);
    if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=256k", "none", mount]).status !== 0) {
      console.log("skipped: no file system can be mounted here");
      return;
    }
    try {
      const columns: OutputColumn[] = [{ name: "text", kind: "utf8" }];
      const options = { ...optionsOf([2, 8]), columns };
      const writer = await openWriter(`${mount}/out`, options);
      for (const row of [0, 1]) writer.add({ row, text: "small" });
      await writer.flush();
      const fill = async () => {
        for (let row = 2; row < 10; row++) {
          writer.add({ row, text: "x".repeat(60_000) });
          await writer.flush();
        }
      };
      await expectCode("DISK_FULL", fill, `${mount}/out`, "ENOSPC", "run the job again");
      await writer.close();
      const next = await openWriter(`${mount}/out`, options);
      const [[, end] = [0, 0]] = next.finished();
      expect(end).toBeGreaterThan(3);
      expect(next.remaining()).toEqual([[end, 10]]);
      spawnSync("mount", ["-o", "remount,size=4m", mount]);
      for (let row = end; row < 10; row++) await next.add({ row, text: "x".repeat(60_000) });
      await next.close();
      expect(next.summary.complete).toBe(true);
    } finally {
      spawnSync("umount", [mount]);
    }
  });

  test("a file system that is read-only", async () => {
    const mount = temp("tiny");
    mkdirSync(mount);
    if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m", "none", mount]).status !== 0) {
      console.log("skipped: no file system can be mounted here");
      return;
    }
    try {
      spawnSync("mount", ["-o", "remount,ro", mount]);
      await expectCode("IO_ERROR", () => openWriter(`${mount}/out`, optionsOf(COUNTS)), "EROFS", "read-only");
    } finally {
      spawnSync("umount", [mount]);
    }
  });
});
