/** Requests of the CUDA device: files to and from private memory, their order, and their early ends. */
import { expect, test } from "bun:test";
import { readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import type { CudaOptions } from "../../../src/device/cuda/options.ts";
import type { KernelSource } from "../../../src/device/device.ts";
import {
  bytesOf,
  expectBytes,
  expectFailed,
  listOf,
  pattern,
  run,
  runWell,
} from "../../conformance/harness.ts";
import { ADD, BLOCK, BLOCK_SUMS, blockSums } from "../../conformance/kernels.ts";
import {
  addCall,
  begin,
  describeOverMock,
  filled,
  KIB,
  patternPart,
  SHUFFLED,
  soon,
  until,
  WINDOW,
  withCuda,
} from "./cuda-rig.ts";

const TINY: CudaOptions = { pieceBytes: 4 * KIB, sliceBuffers: 2, lanes: 2 };
const LENGTH = 200_000;
const ALWAYS = 1_000_000;

/** Takes a while: its threads go round and round. */
const SPIN: KernelSource = {
  name: "spin",
  text: `
struct Spin { uint32_t rounds; };

HR_KERNEL(spin, HR_OUT(0, uint32_t, out), HR_CONSTANTS(1, Spin, c)) {
  uint32_t value = hr_thread;
  for (uint32_t round = 0; round < c.rounds; round++) value = value * 1664525u + 1013904223u;
  if (hr_thread < hr_threads) out[hr_thread] = value;
}
`,
};

interface Part {
  readonly from: number;
  readonly byteLength: number;
}
const parts = fc.array(
  fc.record({ from: fc.nat(LENGTH - 1), byteLength: fc.oneof(fc.nat(300), fc.nat(50_000)) }),
  { minLength: 1, maxLength: 12 },
);

describeOverMock("requests of the CUDA device", () => {
  for (const [how, options] of [
    ["", TINY],
    [", past the page cache", { ...TINY, direct: true }],
  ] as const) {
    test(`reads and writes of any parts side by side move every byte to its place${how}`, async () => {
      await withCuda({ options, config: SHUFFLED }, async ({ device, queue, dir, file, bytes }) => {
        const source = device.openFile(file("source", LENGTH));
        let round = 0;
        const property = fc.asyncProperty(parts, async (any: readonly Part[]) => {
          // They may end anywhere, but not behind the file.
          const all = any.map(({ from, byteLength }) => ({
            from,
            byteLength: Math.min(byteLength, LENGTH - from),
          }));
          const total = Math.max(
            1,
            all.reduce((sum, { byteLength }) => sum + byteLength, 0),
          );
          using target = device.createBuffer(total, "private");
          const copy = join(dir, `copy${round++}`);
          using to = device.openFile(copy, "write");
          const expected = new Uint8Array(total);
          const list = listOf((one) => {
            let at = 0;
            for (const { from, byteLength } of all) {
              one.read(source, from, target, at, byteLength);
              expected.set(patternPart(from, byteLength), at);
              at += byteLength;
            }
            one.barrier().write(target, 0, to, 7, total);
          });
          const { error } = await soon("the end", begin(queue, list).ended);
          expect(error).toBeUndefined();
          expectBytes(await bytes(target), expected);
          expectBytes(new Uint8Array(readFileSync(copy)).subarray(7), expected);
        });
        await fc.assert(property, { numRuns: 12 });
      });
    }, 20_000);
  }

  test("system calls that do less than they were asked, or are interrupted, are repeated", async () => {
    const faults = [
      { call: "pread", nth: 3, times: 20, short: 77 },
      { call: "pread", nth: 30, times: 3, errno: "EINTR" },
      { call: "pwrite", nth: 2, times: 9, short: 1001 },
      { call: "pwrite", nth: 20, times: 2, errno: "EINTR" },
    ] as const;
    await withCuda({ options: { ...TINY, faults } }, async ({ device, queue, dir, file }) => {
      using from = device.openFile(file("source", LENGTH));
      using to = device.openFile(join(dir, "copy"), "write");
      using hidden = device.createBuffer(LENGTH, "private");
      const { bytesDone } = await runWell(queue, (list) =>
        list.read(from, 0, hidden, 0, LENGTH).barrier().write(hidden, 0, to, 0, LENGTH).barrier().sync(to),
      );
      expect(bytesDone).toBe(2 * LENGTH);
      expectBytes(new Uint8Array(readFileSync(join(dir, "copy"))), pattern(LENGTH));
    });
  });

  for (const [call, errno, code, words] of [
    ["pread", "EIO", "IO_ERROR", "reading bytes [0, 200000)"],
    ["pwrite", "ENOSPC", "DISK_FULL", "writing bytes [0, 200000)"],
    ["pwrite", "EIO", "IO_ERROR", "writing bytes [0, 200000)"],
    ["sync", "EIO", "IO_ERROR", "making written data durable"],
  ] as const) {
    test(`${errno} of ${call}, wherever, fails the ticket, and nothing behind it is done`, async () => {
      for (const nth of call === "sync" ? [1] : [1, 2, 11, 49]) {
        const faults = [{ call, nth, errno }];
        await withCuda({ options: { ...TINY, faults } }, async ({ device, queue, dir, file, bytes }) => {
          using from = device.openFile(file("source", LENGTH));
          using to = device.openFile(join(dir, "copy"), "write");
          using after = device.openFile(join(dir, "after"), "write");
          using hidden = device.createBuffer(LENGTH, "private");
          const work = () =>
            run(queue, (list) =>
              list
                .read(from, 0, hidden, 0, LENGTH)
                .barrier()
                .write(hidden, 0, to, 0, LENGTH)
                .barrier()
                .sync(to)
                .barrier()
                .write(hidden, 0, after, 0, 5000),
            );
          const error = expectFailed(await work(), code);
          expect(error.message).toContain(words);
          expect(statSync(join(dir, "after")).size).toBe(0);
          expect((await work()).error).toBeUndefined();
          expectBytes(await bytes(hidden), pattern(LENGTH));
        });
      }
    });
  }

  test("a file that ends early fails with SHORT_READ, and says where it ended", async () => {
    await withCuda({ options: TINY }, async ({ device, queue, file }) => {
      const path = file("source", LENGTH);
      using from = device.openFile(path);
      using hidden = device.createBuffer(LENGTH, "private");
      truncateSync(path, 123_456);
      const error = expectFailed(
        await run(queue, (list) => list.read(from, 0, hidden, 0, LENGTH)),
        "SHORT_READ",
      );
      expect(error.message).toContain("123456 of 200000");
    });
  });

  for (const [where, options, config] of [
    ["on lanes", { ...TINY, faults: [{ call: "pread", nth: 1, times: ALWAYS, delayMs: 4 }] }, {}],
    ["on the GPU", {}, { maxDelayUs: 8000, pieceBytes: 20_000 }],
  ] as const) {
    test(`a cancel and a deadline end a ticket at once, and its memory is still when it is quiet: ${where}`, async () => {
      await withCuda({ options, config }, async ({ device, queue, dir, file, map, bytes, mock }) => {
        const path = file("source", LENGTH);
        using from = device.openFile(path);
        using to = device.openFile(join(dir, "copy"), "write");
        using mapped = map(path);
        for (const delayMs of [0, 1, 5, 15, 30]) {
          for (const how of ["cancel", "deadline"] as const) {
            const hidden = device.createBuffer(LENGTH, "private");
            const list = listOf((one) =>
              one
                .read(from, 0, hidden, 0, LENGTH / 2)
                .copy(mapped, 0, hidden, LENGTH / 2, LENGTH / 2)
                .barrier()
                .copy(mapped, 0, hidden, 0, LENGTH)
                .barrier()
                .write(hidden, 0, to, 0, LENGTH),
            );
            const startedMs = performance.now();
            const one = begin(queue, list, how === "deadline" ? delayMs : undefined);
            if (how === "cancel") {
              if (delayMs > 0) await Bun.sleep(delayMs);
              queue.cancel(one.ticket);
            }
            const { error } = await soon("the end", one.ended);
            if (error !== undefined) {
              expect(error.code).toBe(how === "cancel" ? "CANCELLED" : "TIMED_OUT");
              expect(performance.now() - startedMs).toBeLessThan(delayMs + 60);
            }
            await soon("its quiet", one.quiet);
            writeFileSync(join(dir, "copy"), "x");
            const before = await bytes(hidden);
            await Bun.sleep(15);
            expectBytes(await bytes(hidden), before);
            expect(readFileSync(join(dir, "copy"), "utf8")).toBe("x");
            // Freed at once: whatever came late would lose the context.
            hidden.close();
          }
        }
        expect(mock.reports()).toEqual([]);
      });
    }, 20_000);
  }

  test("lanes, copies and kernels of one submission see each other's bytes in order", async () => {
    for (const options of [{}, { mapBudget: 0 }, TINY]) {
      await withCuda({ options, config: SHUFFLED }, async ({ device, queue, dir, file, map }) => {
        const path = file("source", LENGTH);
        using from = device.openFile(path);
        using mapped = map(path);
        using to = device.openFile(join(dir, "copy"), "write");
        using add = device.createPipeline(ADD);
        for (let round = 0; round < 6; round++) {
          using one = device.createBuffer(LENGTH, "private");
          using two = device.createBuffer(LENGTH, "private");
          using shared = device.createBuffer(LENGTH);
          await runWell(queue, (list) =>
            list
              .read(from, 0, one, 0, LENGTH)
              .copy(mapped, 0, two, 0, LENGTH)
              .barrier()
              .dispatch(addCall(add, one, 1))
              .dispatch(addCall(add, two, 2))
              .copy(one, 0, shared, 0, LENGTH / 2)
              .copy(two, LENGTH / 2, shared, LENGTH / 2, LENGTH / 2)
              .barrier()
              .dispatch(addCall(add, shared, 4))
              .copy(shared, 0, two, 0, LENGTH)
              .barrier()
              .write(two, 0, to, 0, LENGTH / 2)
              .write(shared, LENGTH / 2, to, LENGTH / 2, LENGTH / 2),
          );
          const expected = pattern(LENGTH).map((byte, i) => byte + (i < LENGTH / 2 ? 5 : 6));
          expectBytes(new Uint8Array(readFileSync(join(dir, "copy"))), expected);
          expectBytes(bytesOf(shared), expected);
        }
      });
    }
  }, 20_000);

  test("what a kernel still reads is not replaced by a copy that lanes make", async () => {
    const numBlocks = 200;
    const byteLength = numBlocks * BLOCK * 4;
    for (const config of [{}, { maxDelayUs: 6000, seed: 3 }]) {
      await withCuda(
        { options: { mapBudget: 0 }, config },
        async ({ device, queue, file, map, hidden, bytes }) => {
          using mapped = map(file("source", byteLength, 9));
          using sumsOf = device.createPipeline(BLOCK_SUMS);
          for (let round = 0; round < 4; round++) {
            using input = await hidden(byteLength, 5);
            using sums = device.createBuffer(numBlocks * 4);
            await runWell(queue, (list) =>
              list.dispatch(blockSums(sumsOf, input, sums, numBlocks)).copy(mapped, 0, input, 0, byteLength),
            );
            const expected = new Uint32Array(numBlocks);
            const inputs = [pattern(byteLength, 5), new Uint8Array(expected.buffer)];
            BLOCK_SUMS.host!(inputs, new Uint8Array(0), numBlocks * BLOCK);
            expectBytes(bytesOf(sums), new Uint8Array(expected.buffer));
            expectBytes(await bytes(input), pattern(byteLength, 9));
          }
        },
      );
    }
  });

  test("events order the queues, and the device's own memory is copied within it", async () => {
    await withCuda({ config: SHUFFLED }, async ({ device, queue, hidden, bytes }) => {
      const other = device.createQueue();
      using event = device.createEvent();
      using add = device.createPipeline(ADD);
      using one = await hidden(WINDOW, 1);
      using two = await hidden(WINDOW);
      const ends = [];
      for (let turn = 0; turn < 10; turn++) {
        const ping = listOf((list) =>
          list
            .wait(event, 2 * turn)
            .dispatch(addCall(add, one, 1))
            .copy(one, 0, two, 0, WINDOW)
            .signal(event, 2 * turn + 1),
        );
        const pong = listOf((list) =>
          list
            .wait(event, 2 * turn + 1)
            .dispatch(addCall(add, two, 1))
            .copy(two, 0, one, 0, WINDOW)
            .signal(event, 2 * turn + 2),
        );
        ends.push(begin(queue, ping).ended, begin(other, pong).ended);
      }
      for (const { error } of await soon("the ends", Promise.all(ends))) expect(error).toBeUndefined();
      expectBytes(
        await bytes(one),
        pattern(WINDOW).map((byte) => byte + 20),
      );
      await other.close();
    });
  });

  test("a long kernel of one queue does not hold up another", async () => {
    await withCuda({}, async ({ device, queue, mock }) => {
      const other = device.createQueue();
      using spin = device.createPipeline(SPIN);
      using out = device.createBuffer(4 * 256);
      using shared = filled(device, pattern(64 * KIB));
      using target = device.createBuffer(64 * KIB, "private");
      const constants = new Uint8Array(Uint32Array.of(2_000_000).buffer);
      const call = { pipeline: spin, buffers: [{ buffer: out, offset: 0 }], constants, threads: 256 };
      let over = false;
      const long = begin(
        queue,
        listOf((list) => list.dispatch(call)),
      ).ended.then((end) => {
        over = true;
        return end;
      });
      await until(() => mock.calls("cuLaunchKernel") > 0);
      for (let i = 0; i < 5; i++) {
        await runWell(other, (list) => list.copy(shared, 0, target, 0, 64 * KIB));
        expect(over).toBe(false);
      }
      expect((await soon("the kernel", long, 20_000)).error).toBeUndefined();
      await other.close();
    });
  }, 30_000);

  test("five thousand tiny submissions at once all end well", async () => {
    await withCuda({}, async ({ device, queue, bytes }) => {
      const count = 5000;
      using shared = filled(device, pattern(count * 8));
      using target = device.createBuffer(count * 8, "private");
      const ends = Array.from(
        { length: count },
        (_, i) =>
          begin(
            queue,
            listOf((list) => list.copy(shared, i * 8, target, i * 8, 8)),
          ).ended,
      );
      const all = await soon("the ends", Promise.all(ends), 20_000);
      expect(all.filter(({ error, bytesDone }) => error !== undefined || bytesDone !== 8)).toEqual([]);
      expectBytes(await bytes(target), pattern(count * 8));
    });
  }, 30_000);
});
