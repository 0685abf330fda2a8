/** What the system keeps of a file in memory. */
import { afterAll, expect, test } from "bun:test";
import { closeSync, fsyncSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openDevice } from "../../../src/index.ts";

const MIB = 2 ** 20;
const folder = mkdtempSync(join(tmpdir(), "headrace-page-cache-"));
const path = join(folder, "file");
const file = openSync(path, "w+");
for (let i = 0; i < 64; i++) writeSync(file, new Uint8Array(MIB).fill(i));
fsyncSync(file);
afterAll(() => {
  closeSync(file);
  rmSync(folder, { recursive: true });
});

function partsAfterDropping(): { samples: number | undefined; all: number | undefined; canDrop: boolean } {
  const device = openDevice("host", { lanes: 1 });
  using watched = device.openFile(path);
  watched.forgetResident?.();
  const canDrop = watched.residentPart?.(true) === 0;
  // Between two of the samples, which begin at whole mebibytes here.
  readSync(file, new Uint8Array(4096), 0, 4096, 10 * MIB + MIB / 2);
  const parts = { samples: watched.residentPart?.(), all: watched.residentPart?.(true), canDrop };
  void device.close();
  return parts;
}

const { samples, all, canDrop } = partsAfterDropping();
const reason = canDrop ? "" : " (left out: this file system or this system keeps what it is asked to forget)";

test.skipIf(!canDrop)(`a page that no sample meets is found where all are looked at${reason}`, () => {
  expect(samples).toBe(0);
  expect(all).toBeGreaterThan(0);
  expect(all).toBeLessThan(1 / 16);
});

test("a file in memory is there by samples and as a whole", () => {
  const bytes = new Uint8Array(64 * MIB);
  readSync(file, bytes, 0, bytes.length, 0);
  const device = openDevice("host", { lanes: 1 });
  using watched = device.openFile(path);
  expect(watched.residentPart?.() ?? 1).toBeGreaterThan(0.9);
  expect(watched.residentPart?.(true) ?? 1).toBeGreaterThan(0.9);
  void device.close();
});
