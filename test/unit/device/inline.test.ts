import { expect, test } from "bun:test";
import { InlineCopies } from "../../../src/device/host/inline.ts";

test("small copies are made at once, large ones never", () => {
  const inline = new InlineCopies(1000);
  expect([inline.allow(1000), inline.allow(1001), inline.allow(0)]).toEqual([true, false, true]);
});

test("a slow copy sends the next 64 to the lanes, a fast one none", () => {
  const inline = new InlineCopies(10 ** 9);
  inline.took(100_000, 0.3);
  // Large and in proportion.
  inline.took(10 ** 8, 50);
  expect(inline.allow(1)).toBe(true);
  inline.took(1, 3);
  const answers = Array.from({ length: 70 }, () => inline.allow(1));
  expect(answers.indexOf(true)).toBe(64);
  expect(answers.slice(64).every((answer) => answer)).toBe(true);
});
