/** Heaps and tables of addresses, where a device has them. */
import { expect, test } from "bun:test";
import type { Device } from "../../src/device/device.ts";
import { bytesOf, expectBytes, expectCode, pattern, runWell, type Subject, withDevice } from "./harness.ts";

export function heapCases(subject: Subject): void {
  /** Runs `work` on a device that has them; says so where it has not. */
  function withHeaps(work: (device: Required<Device>) => Promise<void>): Promise<void> {
    return withDevice(subject.open(), async (device) => {
      if (device.createHeap !== undefined && device.createAddressTable !== undefined) {
        await work(device as Required<Device>);
      } else console.warn(`left out: ${subject.name} has no heaps and address tables`);
    });
  }

  test("parts of a heap are zeroed memory of their own, and outlive it", () =>
    withHeaps(async (device) => {
      const heap = device.createHeap(4 * 2 ** 20, "shared");
      const [first, second] = [heap.createBuffer(100_000), heap.createBuffer(200_001)];
      expect(device.openResources).toBe(3);
      expect(bytesOf(first).every((byte) => byte === 0)).toBe(true);
      new Uint8Array(first.view(0, 100_000)).set(pattern(100_000));
      heap.close();
      heap.close();
      expectCode("CLOSED", () => heap.createBuffer(1));
      await runWell(device.createQueue(), (list) => list.copy(first, 5, second, 100_005, 90_000));
      expectBytes(bytesOf(second, 100_005, 90_000), pattern(100_000).subarray(5, 90_005));
      expect(bytesOf(second, 0, 100_005).every((byte) => byte === 0)).toBe(true);
    }));

  test("a heap that is full says so, and what was given back can be had again", () =>
    withHeaps(async (device) => {
      using heap = device.createHeap(2 ** 20, "private");
      const half = heap.createBuffer(600_000);
      expect([half.storage, half.hostAddress]).toEqual(["private", 0]);
      expectCode("OUT_OF_MEMORY", () => heap.createBuffer(600_000));
      expectCode("OUT_OF_RANGE", () => heap.createBuffer(2 ** 40));
      half.close();
      // Memory goes with its last user, which may be the device's own zeroing of it.
      let again: { close(): void } | undefined;
      for (let wait = 0; wait < 200 && again === undefined; wait++) {
        try {
          again = heap.createBuffer(600_000);
        } catch {
          await Bun.sleep(10);
        }
      }
      expect(again).toBeDefined();
      again?.close();
      expectCode("OUT_OF_RANGE", () => device.createHeap(device.capabilities.maxBufferLength + 1, "shared"));
      expectCode("BAD_OPTION", () => device.createHeap(100, "public" as "shared"));
    }));

  test("a table holds the addresses of its entries", () =>
    withHeaps(async (device) => {
      const [a, b] = [device.createBuffer(1000), device.createBuffer(2000, "private")];
      const entries = [
        { buffer: a, offset: 0 },
        { buffer: b, offset: 1200 },
        { buffer: a, offset: 999 },
      ];
      const table = device.createAddressTable(entries);
      const addresses = [...new BigUint64Array(table.view(0, table.byteLength))].map(Number);
      expect(addresses).toEqual(entries.map(({ buffer, offset }) => buffer.gpuAddress + offset));
      expectCode("OUT_OF_RANGE", () => device.createAddressTable([{ buffer: a, offset: 1001 }]));
      b.close();
      expectCode("CLOSED", () => device.createAddressTable(entries));
      await withDevice(subject.open(), async (other) => {
        const theirs = other.createBuffer(10);
        expectCode("BAD_OPTION", () => device.createAddressTable([{ buffer: theirs, offset: 0 }]));
      });
    }));
}
