import { expect, test } from "bun:test";
import fc from "fast-check";
import { didYouMean, nearestNames } from "../../../src/format/suggest.ts";

test("nearest first, then in order of names", () => {
  expect(nearestNames("abcdef", ["abxxef", "abcdeg", "abcdee", "zzzzzz", "ABCDEF"])).toEqual([
    "ABCDEF",
    "abcdee",
    "abcdeg",
  ]);
});

test("a third of the name may differ, three characters at most", () => {
  expect(nearestNames("ab", ["ac", "cd"])).toEqual(["ac"]);
  expect(nearestNames("a".repeat(30), [`${"a".repeat(27)}bbb`, `${"a".repeat(26)}bbbb`])).toEqual([
    `${"a".repeat(27)}bbb`,
  ]);
});

test("property: one edit is always found", () => {
  const name = fc.string({ minLength: 1, maxLength: 40 });
  fc.assert(
    fc.property(
      name,
      fc.nat(),
      fc.string({ minLength: 1, maxLength: 1 }),
      fc.nat(2),
      (name, place, unit, kind) => {
        const at = place % name.length;
        const middle = kind === 0 ? unit : kind === 1 ? "" : unit + name[at];
        const edited = name.slice(0, at) + middle + name.slice(at + 1);
        fc.pre(edited.length > 0);
        expect(nearestNames(edited, ["something else entirely, and long", name])).toEqual([name]);
      },
    ),
  );
});

test("no names, long names, no answer", () => {
  expect(didYouMean("x", [])).toBe("");
  expect(didYouMean("x".repeat(300), ["x".repeat(300)])).toBe("");
  expect(didYouMean("wieght", ["weight", "bias"])).toBe('; did you mean "weight"?');
});

test("a miss among 100,000 alike names is quick", () => {
  const names = Array.from({ length: 100_000 }, (_, i) => `model.layers.${i}.mlp.gate_proj.weight`);
  const started = performance.now();
  expect(nearestNames("model.layers.x.mlp.gate_proj.weight", names).length).toBe(3);
  expect(performance.now() - started).toBeLessThan(2_000);
});
