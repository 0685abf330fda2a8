/** Files that shrink under their mappings on the CUDA device: never a crash, and always FILE_CHANGED. */
import { expect, test } from "bun:test";
import { truncateSync } from "node:fs";
import { expectCode, expectFailed, listOf } from "../../conformance/harness.ts";
import { begin, describeOverMock, KIB, soon, until, WINDOW, withCuda } from "./cuda-rig.ts";

const LENGTH = 6 * WINDOW;
const ALWAYS = 1_000_000;

describeOverMock("files that shrink under the CUDA device", () => {
  test("a file that shrinks before a submission is refused, registered or not", async () => {
    for (const whole of [false, true]) {
      await withCuda({}, async (rig) => {
        const { device, queue } = rig;
        const path = rig.file("data", LENGTH);
        const mapping = rig.map(path);
        if (whole) {
          const before = rig.mock.live().registeredBytes;
          mapping.advise("will-need", 0, LENGTH);
          await until(() => rig.mock.live().registeredBytes - before >= LENGTH);
        }
        using target = device.createBuffer(LENGTH, "private");
        truncateSync(path, WINDOW + 1);
        expectCode("FILE_CHANGED", () =>
          queue.submit(listOf((list) => list.copy(mapping, 0, target, 0, LENGTH))),
        );
      });
    }
  });

  for (const [what, call] of [
    ["is staged", "pread"],
    ["is registered", "cuMemHostRegister_v2"],
  ] as const) {
    test(`a file that shrinks while it ${what} fails the ticket with FILE_CHANGED`, async () => {
      const faults = call === "pread" ? [{ call, nth: 1, times: ALWAYS, delayMs: 40 }] : [];
      const registering = call !== "pread";
      // Small copies do not wait for windows.
      for (const small of registering ? [false] : [false, true]) {
        const mapBudget = registering ? LENGTH : 0;
        await withCuda(
          { options: { faults, mapBudget }, mayReport: true },
          async ({ device, queue, mock, map, file }) => {
            const path = file("data", LENGTH);
            const mapping = map(path);
            using target = device.createBuffer(LENGTH, "private");
            if (registering) mock.setFaults([{ call, times: ALWAYS, delayMs: 40 }]);
            const rows = listOf((list) => {
              if (!small) list.copy(mapping, 0, target, 0, LENGTH);
              else for (let i = 1; i < 300; i++) list.copy(mapping, i * KIB, target, i * KIB, 700);
            });
            const one = begin(queue, rows);
            await Bun.sleep(5);
            truncateSync(path, 100);
            const end = await soon("the end", one.ended);
            await soon("its quiet", one.quiet);
            expectFailed(end, "FILE_CHANGED");
            expect(queue.inFlight).toBe(0);
          },
        );
      }
    });
  }
});
