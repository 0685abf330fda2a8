/** Every file of `test/attacks/safetensors` is answered by its code, soon, and with a message of one short line. */
import { describe, expect, test } from "bun:test";
import { ATTACKS } from "../../attacks/safetensors/attacks.ts";
import { failureOf } from "../failure.ts";
import { describeBytes } from "./safetensors-files.ts";

describe("attacks", () => {
  for (const { name, harm, code, make } of ATTACKS) {
    test(`${name}: ${harm}`, () => {
      const file = make();
      const started = performance.now();
      if (code === "ok") {
        const { tensors, rows } = describeBytes(file);
        expect(tensors!.length).toBeGreaterThan(0);
        expect(rows?.numRows ?? 0).toBeLessThanOrEqual(file.length);
      } else {
        const failure = failureOf(() => describeBytes(file));
        expect(failure.code).toBe(code);
        expect(failure.message).not.toMatch(/[\n\r]/);
        expect(failure.message.length).toBeLessThan(500);
      }
      // Measured in hundreds of milliseconds at worst; loose for slow machines.
      expect(performance.now() - started).toBeLessThan(10_000);
    });
  }

  test("leave nothing behind on the prototypes", () => {
    expect(Object.keys(Object.prototype)).toEqual([]);
    expect("dtype" in {}).toBe(false);
  });
});
