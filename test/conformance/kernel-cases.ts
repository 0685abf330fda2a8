/** The project's own kernels: every device computes what their host forms do, byte for byte. */
import { expect, test } from "bun:test";
import type { Device, DeviceBuffer, DeviceQueue, KernelSource, Pipeline } from "../../src/device/device.ts";
import type { DispatchCall } from "../../src/device/requests.ts";
import { checksumCall, checksumKernel, checksumOf, finishChecksum } from "../../src/kernels/checksum.ts";
import { type Conversion, convertCall, convertKernel } from "../../src/kernels/convert.ts";
import { gatherCall, gatherKernel } from "../../src/kernels/gather.ts";
import {
  MOVE_ADDRESS_BYTES,
  MOVE_LENGTH_BYTES,
  moveCall,
  moveKernel,
  writeMove,
} from "../../src/kernels/move.ts";
import { padAndMaskCall, padAndMaskKernel } from "../../src/kernels/pad.ts";
import { bytesOf, expectBytes, pattern, runWell, type Subject, useRig } from "./harness.ts";

const GUARD = 0xa5;

const CONVERSIONS: readonly Conversion[] = [
  { from: "F16", to: "F32" },
  { from: "BF16", to: "F16" },
  { from: "F32", to: "BF16" },
  { from: "U8", to: "F32", scaled: true },
  { from: "F32", to: "I8", scaled: true },
];

export function kernelCases(subject: Subject): void {
  if (!subject.movesData) return;
  let device: Device;
  let queue: DeviceQueue;
  useRig(subject, (rig) => {
    ({ device, queue } = rig);
  });

  /** A shared buffer with `bytes`. */
  const filled = (bytes: Uint8Array): DeviceBuffer => {
    const buffer = device.createBuffer(Math.max(1, bytes.length));
    new Uint8Array(buffer.view(0, buffer.byteLength)).set(bytes);
    return buffer;
  };

  /** Runs a kernel on the device and its host form on copies of the buffers, and compares all of them. */
  const runAsHost = async (source: KernelSource, callOf: (pipeline: Pipeline) => DispatchCall) => {
    using pipeline = device.createPipeline(source);
    const call = callOf(pipeline);
    const views = () =>
      call.buffers.map(({ buffer, offset }) => bytesOf(buffer, offset, buffer.byteLength - offset));
    const expected = views();
    source.host!(expected, call.constants, call.threads);
    await runWell(queue, (list) => list.dispatch(call));
    for (const [index, bytes] of views().entries()) expectBytes(bytes, expected[index]!);
  };

  test("checksum sums any range of shared and of private memory, whole and in pieces", async () => {
    const bytes = pattern(300_000, 6);
    using pipeline = device.createPipeline(checksumKernel);
    using shared = filled(bytes);
    using hidden = device.createBuffer(bytes.length, "private");
    await runWell(queue, (list) => list.copy(shared, 0, hidden, 0, bytes.length));
    for (const buffer of [shared, hidden]) {
      for (const [byteOffset, byteLength, cut] of [
        [0, 300_000, 0],
        [0, 299_999, 65_536],
        [16, 100_000, 16],
        [4, 70_001, 4096],
        [3, 5000, 2512],
        [299_999, 1, 0],
        [7, 0, 0],
      ] as const) {
        using sums = device.createBuffer(8);
        const piece = (start: number, end: number) =>
          checksumCall(pipeline, {
            bytes: { buffer, byteOffset: byteOffset + start },
            byteLength: end - start,
            sums: { buffer: sums },
            position: start,
          });
        await runWell(queue, (list) => list.dispatch(piece(cut, byteLength)).dispatch(piece(0, cut)));
        const words = new Uint32Array(bytesOf(sums).slice(0, 8).buffer);
        const expected = checksumOf(bytes.slice(byteOffset, byteOffset + byteLength));
        expect(finishChecksum(words, byteLength)).toBe(expected);
      }
    }
  });

  test("move copies rows of any length and alignment by their addresses", async () => {
    const rows = Array.from({ length: 200 }, (_, i) => (i % 10 === 0 ? 3000 + i : (i * 37) % 300));
    const bytes = pattern(200_000, 8);
    using source = filled(bytes);
    const expected = new Uint8Array(200_000).fill(GUARD);
    using target = filled(expected);
    const entries: { buffer: DeviceBuffer; offset: number }[] = [];
    let at = 0;
    for (const [index, length] of rows.entries()) {
      const from = (index * 7919) % 190_000;
      entries.push({ buffer: source, offset: from }, { buffer: target, offset: at });
      expected.set(bytes.subarray(from, from + length), at);
      at += length + (index % 5);
    }
    using addresses =
      device.createAddressTable?.(entries) ?? device.createBuffer(rows.length * MOVE_ADDRESS_BYTES);
    using byteLengths = device.createBuffer(rows.length * MOVE_LENGTH_BYTES);
    const table = {
      // The device's own table has the addresses already.
      addresses: new Uint32Array(
        device.createAddressTable === undefined
          ? addresses.view(0, rows.length * MOVE_ADDRESS_BYTES)
          : new ArrayBuffer(rows.length * MOVE_ADDRESS_BYTES),
      ),
      byteLengths: new Uint32Array(byteLengths.view(0, rows.length * MOVE_LENGTH_BYTES)),
    };
    for (const [index, length] of rows.entries()) {
      const [from, to] = [entries[2 * index]!, entries[2 * index + 1]!];
      writeMove(table, index, from.buffer.gpuAddress + from.offset, to.buffer.gpuAddress + to.offset, length);
    }
    using pipeline = device.createPipeline(moveKernel);
    for (const maxByteLength of [100, 3200]) {
      new Uint8Array(target.view(0, target.byteLength)).fill(GUARD);
      const call = moveCall(pipeline, {
        addresses: { buffer: addresses },
        byteLengths: { buffer: byteLengths },
        count: rows.length,
        maxByteLength,
      });
      await runWell(queue, (list) => list.dispatch(call));
      expectBytes(bytesOf(target), expected);
    }
  });

  test("gather takes rows by their numbers, and counts those that are not there", async () => {
    for (const [rowBytes, sourceStride, offset] of [
      [3072, 3072, 0],
      [768, 784, 16],
      [101, 128, 5],
      [1, 1, 3],
    ] as const) {
      const indices = Uint32Array.from({ length: 300 }, (_, i) => (i % 50 === 7 ? 64 + i : (i * 29) % 64));
      using source = filled(pattern(offset + 64 * sourceStride, rowBytes));
      using numbers = filled(new Uint8Array(indices.buffer));
      using target = filled(new Uint8Array(300 * (rowBytes + 3) + 1).fill(GUARD));
      using errors = device.createBuffer(4);
      await runAsHost(gatherKernel, (pipeline) =>
        gatherCall(pipeline, {
          source: { buffer: source, byteOffset: offset },
          numRows: 64,
          rowBytes,
          sourceStride,
          indices: { buffer: numbers },
          count: 300,
          target: { buffer: target, byteOffset: 1 },
          targetStride: rowBytes + 3,
          errors: { buffer: errors },
        }),
      );
      expect(new Uint32Array(bytesOf(errors).slice(0, 4).buffer)[0]).toBe(6);
    }
  });

  test("pad_and_mask pads ragged rows of elements of any size", async () => {
    const offsets = [0, 0, 5, 905, 906, 1200, 1100, 1300];
    for (const [elementBytes, offsetBytes] of [
      [1, 4],
      [2, 4],
      [4, 8],
      [8, 4],
    ] as const) {
      const ends = offsetBytes === 4 ? Uint32Array.from(offsets) : BigUint64Array.from(offsets, BigInt);
      using values = filled(pattern(1250 * elementBytes, 3));
      using places = filled(new Uint8Array(ends.buffer));
      using padded = filled(new Uint8Array(7 * 300 * elementBytes).fill(GUARD));
      using mask = filled(new Uint8Array(7 * 300).fill(GUARD));
      using errors = device.createBuffer(4);
      await runAsHost(padAndMaskKernel(elementBytes, offsetBytes), (pipeline) =>
        padAndMaskCall(pipeline, {
          elementBytes,
          offsetBytes,
          values: { buffer: values },
          numValues: 1250,
          offsets: { buffer: places },
          rows: 7,
          length: 300,
          padded: { buffer: padded },
          mask: { buffer: mask },
          pad: 2n ** BigInt(8 * elementBytes) - 3n,
          errors: { buffer: errors },
        }),
      );
      expect(new Uint32Array(bytesOf(errors).slice(0, 4).buffer)[0]).toBe(2);
      expect(bytesOf(mask).reduce((sum, one) => sum + one, 0)).toBe(5 + 300 + 1 + 294);
    }
  });

  for (const conversion of CONVERSIONS) {
    const { from, to, scaled = false } = conversion;
    test(`convert makes ${to} of ${from}${scaled ? " with a scale" : ""}`, async () => {
      const count = 65_536;
      using source = filled(numbersOf(from, count + 1));
      using target = filled(new Uint8Array((count + 1) * 4).fill(GUARD));
      const size = from === "U8" ? 1 : from === "F32" ? 4 : 2;
      for (const byteOffset of [0, size]) {
        await runAsHost(convertKernel(conversion), (pipeline) =>
          convertCall(pipeline, {
            ...conversion,
            source: { buffer: source, byteOffset },
            target: { buffer: target },
            count: count - 3,
            ...(scaled ? { scale: 1.25, bias: -100 } : {}),
          }),
        );
      }
    });
  }
}

/** Elements of every kind: all F16s and BF16s, and for what is calculated numbers that are not subnormal. */
function numbersOf(type: Conversion["from"], count: number): Uint8Array {
  if (type === "U8") return pattern(count, 4);
  if (type === "F32") {
    const floats = Float32Array.from({ length: count }, (_, i) => ((i * 7919) % 65_521) / 128 - 256);
    return new Uint8Array(floats.buffer);
  }
  return new Uint8Array(Uint16Array.from({ length: count }, (_, i) => i).buffer);
}
