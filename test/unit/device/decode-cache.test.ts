/** How much the cache of decoded chunks keeps, and when that grows. */
import { describe, expect, test } from "bun:test";
import { ChunkCache, type Place, type PlaceOwner } from "../../../src/device/decode/cache.ts";
import { LONG_CHUNK, PlaceState } from "../../../src/device/decode/records.ts";
import { Syscalls } from "../../../src/device/host/syscalls.ts";

const LONG = 2 * LONG_CHUNK;
const SHORT = LONG_CHUNK / 4;

function rig(budget: number, limit?: number) {
  const cache = new ChunkCache(new Syscalls(), budget, limit);
  const owner: PlaceOwner = { places: new Map<number, Place>(), longGone: new Set() };
  /** Decodes a chunk unless it is kept; says what it took. */
  const want = (chunk: number, byteLength: number): "kept" | "decoded" | "no room" => {
    const place = cache.acquire(owner, chunk, byteLength);
    if (place === undefined) return "no room";
    const state = Atomics.exchange(cache.states, place.index, PlaceState.ready);
    cache.release(place);
    return state === PlaceState.ready ? "kept" : "decoded";
  };
  return { cache, owner, want, [Symbol.dispose]: () => cache.close() };
}

describe("the bound of what is kept", () => {
  test("grows where long chunks take turns, until they fit side by side", () => {
    using r = rig(LONG + SHORT, 4 * LONG);
    expect([r.want(0, LONG), r.want(1, LONG)]).toEqual(["decoded", "decoded"]);
    // The first had to go for the second: it comes back, and then both stay.
    expect([r.want(0, LONG), r.want(1, LONG)]).toEqual(["decoded", "kept"]);
    expect([r.want(0, LONG), r.want(1, LONG), r.want(0, LONG)]).toEqual(["kept", "kept", "kept"]);
    expect(r.cache.byteLength).toBe(2 * LONG);
  });

  test("does not grow for chunks that come once, one after another", () => {
    using r = rig(LONG + SHORT, 100 * LONG);
    for (let chunk = 0; chunk < 50; chunk++) expect(r.want(chunk, LONG)).toBe("decoded");
    expect(r.cache.byteLength).toBe(LONG);
  });

  test("ends at its limit", () => {
    using r = rig(LONG, 2 * LONG);
    for (let round = 0; round < 20; round++) for (const chunk of [0, 1, 2, 3]) r.want(chunk, LONG);
    expect(r.cache.byteLength).toBe(2 * LONG);
  });

  test("stays where no limit above it is given", () => {
    using r = rig(LONG);
    for (let round = 0; round < 5; round++)
      for (const chunk of [0, 1]) expect(r.want(chunk, LONG)).toBe("decoded");
    expect(r.cache.byteLength).toBe(LONG);
  });

  test("stays for short chunks, of which each is soon decoded again", () => {
    using r = rig(2 * SHORT, 100 * SHORT);
    for (let round = 0; round < 5; round++) for (const chunk of [0, 1, 2]) r.want(chunk, SHORT);
    expect(r.cache.byteLength).toBe(2 * SHORT);
  });

  test("makes room for a chunk longer than all of it when that comes again", () => {
    using r = rig(SHORT, 2 * LONG);
    expect([r.want(7, LONG), r.want(7, LONG), r.want(7, LONG)]).toEqual(["no room", "decoded", "kept"]);
  });

  test("forgets with its file what had to go", () => {
    using r = rig(LONG, 4 * LONG);
    r.want(0, LONG);
    r.want(1, LONG);
    expect([...r.owner.longGone]).toEqual([0]);
    r.cache.drop(r.owner);
    expect(r.owner.longGone.size).toBe(0);
  });
});
