/** Stop texts, in tokens that are cut anywhere. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { findStop, StopWatch } from "../../../src/infer/stops.ts";

setDefaultTimeout(60_000);

const encoder = new TextEncoder();

/** Tokens that are pieces of the UTF-8 of `text`, cut at `cuts`, and what decodes them. */
function pieces(text: string, cuts: readonly number[]) {
  const bytes = encoder.encode(text);
  const at = [...new Set([0, ...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length])].sort(
    (a, b) => a - b,
  );
  const tokens = Int32Array.from({ length: at.length - 1 }, (_, i) => i);
  const decode = (ids: Int32Array) => {
    const parts = [...ids].flatMap((id) => [...bytes.subarray(at[id]!, at[id + 1]!)]);
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(parts));
  };
  return { tokens, decode, ends: at.slice(1), bytes };
}

/** Pushes token after token; how many until a stop was found, and what is left. */
function run(tokens: Int32Array, stops: readonly string[], decode: (ids: Int32Array) => string) {
  const watch = new StopWatch(stops, decode);
  for (let count = 1; count <= tokens.length; count++) {
    if (watch.push(tokens.subarray(0, count))) return { pushed: count, ...watch.stopped! };
  }
  return watch.flush(tokens) ? { pushed: tokens.length, ...watch.stopped! } : undefined;
}

/** The stop that is complete first when the text comes unit by unit, by looking at every beginning of it. */
function firstStop(text: string, stops: readonly string[]) {
  for (let end = 1; end <= text.length; end++) {
    const found = stops.filter((stop) => text.slice(0, end).endsWith(stop));
    if (found.length > 0) return { start: end - Math.max(...found.map((stop) => stop.length)), end };
  }
  return undefined;
}

const texts = fc.string({ unit: fc.constantFrom("a", "b", "é", "€", "😀", " "), maxLength: 40 });
const stopLists = fc.array(
  fc.string({ unit: fc.constantFrom("a", "b", "é", "€", "😀"), minLength: 1, maxLength: 4 }),
  {
    minLength: 1,
    maxLength: 3,
  },
);

describe("findStop", () => {
  test("finds what is complete first", () => {
    fc.assert(
      fc.property(texts, stopLists, (text, stops) => {
        expect(findStop(text, stops)).toEqual(firstStop(text, stops));
      }),
    );
  });

  test("begins where it is told, and takes the longest of those that end together", () => {
    expect(findStop("ab ab", ["ab"], 1)).toEqual({ start: 3, end: 5 });
    expect(findStop("xabc", ["bc", "abc", "c"])).toEqual({ start: 1, end: 4 });
    expect(findStop("abcd", ["abcd", "bc"])).toEqual({ start: 1, end: 3 });
    expect(findStop("abcd", [])).toBeUndefined();
  });
});

describe("a watch", () => {
  test("finds the same stop however the text is cut into tokens", () => {
    fc.assert(
      fc.property(texts, stopLists, fc.array(fc.nat(200), { maxLength: 40 }), (text, stops, cuts) => {
        const { tokens, decode, ends, bytes } = pieces(text, cuts);
        const found = run(tokens, stops, decode);
        const expected = firstStop(text, stops);
        expect(found?.text).toEqual(expected && text.slice(0, expected.start));
        if (expected === undefined || found === undefined) return;
        // Of each token, the units up to the first end of a token, from its own on, that ends a character too.
        const isWhole = (end: number) => end === bytes.length || (bytes[end]! & 0xc0) !== 0x80;
        const units = ends.map((_, i) => {
          const end = ends.slice(i).find(isWhole)!;
          return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes.subarray(0, end)).length;
        });
        expect(found.numTokens).toBe(units.filter((unit) => unit <= expected.start).length);
        expect(text.slice(0, expected.start)).toStartWith(decode(tokens.subarray(0, found.numTokens)));
        // It is seen with the first token whose end is behind it, and ends a character.
        const needed = encoder.encode(text.slice(0, expected.end)).length;
        expect(found.pushed).toBe(ends.findIndex((end) => end >= needed && isWhole(end)) + 1);
      }),
      { numRuns: 500 },
    );
  });

  test("sees a stop text behind bytes that are no text", () => {
    const decode = (ids: Int32Array) => new TextDecoder().decode(Uint8Array.from(ids));
    const bad = new Array<number>(100).fill(0xff);
    const found = run(Int32Array.from([...bad, ...encoder.encode("abENDcd")]), ["END"], decode);
    expect(found).toMatchObject({ text: `${"\uFFFD".repeat(100)}ab`, numTokens: 102 });
    let decoded = 0;
    const counting = (ids: Int32Array) => {
      decoded += ids.length;
      return decode(ids);
    };
    run(new Int32Array(5000).fill(0xff), ["END"], counting);
    expect(decoded).toBeLessThan(5000 * 64);
  });

  test("keeps tokens without text, and the space that a decoder drops in front", () => {
    const words = ["▁the", "▁end", "", "▁of", "▁it"];
    const decode = (ids: Int32Array) =>
      [...ids]
        .map((id) => words[id])
        .join("")
        .replaceAll("▁", " ")
        .replace(/^ /, "");
    expect(run(Int32Array.of(0, 1, 2, 3, 4), [" of"], decode)).toEqual({
      pushed: 4,
      text: "the end",
      numTokens: 3,
    });
    expect(run(Int32Array.of(0, 1, 2, 3, 4), ["the e"], decode)).toMatchObject({ text: "", numTokens: 0 });
    expect(run(Int32Array.of(0, 1, 2), [" of"], decode)).toBeUndefined();
  });
});
