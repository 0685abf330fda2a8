/** How much the cache of decoded chunks keeps, when that grows, and what goes first. */
import { describe, expect, test } from "bun:test";
import { ChunkCache, type Place, type PlaceOwner, type Room } from "../../../src/device/decode/cache.ts";
import { ChunkBits } from "../../../src/device/decode/chunk-bits.ts";
import { PlaceState } from "../../../src/device/decode/records.ts";
import { createFaultCounters, type Fault } from "../../../src/device/host/faults.ts";
import { Syscalls } from "../../../src/device/host/syscalls.ts";

const PAGE = new Syscalls().pageSize;
const CHUNK = 8 * PAGE;

/** Memory that is there for the asking, up to `spare` bytes. */
function roomOf(spare: number): Room & { spare: number; lacking: number; promised: number } {
  return {
    spare,
    lacking: 0,
    promised: 0,
    grant(byteLength, promised) {
      this.promised = promised;
      if (byteLength > this.spare) return false;
      this.spare -= byteLength;
      return true;
    },
    shortage() {
      return this.lacking;
    },
  };
}

function newOwner(): PlaceOwner {
  return { places: new Map<number, Place>(), gone: new ChunkBits(1000) };
}

function rig(first: number, spare = 0, faults: readonly Fault[] = []) {
  const room = roomOf(spare);
  const plan = { faults, counters: createFaultCounters(faults) };
  const cache = new ChunkCache(new Syscalls(plan), room, first);
  const owner = newOwner();
  /** Decodes a chunk unless it is kept; says what it took. */
  const want = (chunk: number, byteLength = CHUNK): "kept" | "decoded" | "no room" => {
    const place = cache.acquire(owner, chunk, byteLength);
    if (place === undefined) return "no room";
    const state = Atomics.exchange(cache.states, place.index, PlaceState.ready);
    cache.release(place);
    return state === PlaceState.ready ? "kept" : "decoded";
  };
  /** How many of chunks `[0, count)` are kept when each is wanted in turn. */
  const hits = (count: number) =>
    Array.from({ length: count }, (_, chunk) => want(chunk)).filter((how) => how === "kept").length;
  return { cache, owner, room, want, hits, [Symbol.dispose]: () => cache.close() };
}

describe("the bound of what is kept", () => {
  test("grows for chunks that come again, until all fit", () => {
    using r = rig(2 * CHUNK, 100 * CHUNK);
    expect(r.hits(10)).toBe(0);
    expect(r.cache.byteLength).toBe(2 * CHUNK);
    r.hits(10);
    expect(r.hits(10)).toBe(10);
    expect(r.cache.byteLength).toBe(10 * CHUNK);
  });

  test("grows at once for chunks that are said to come again, and no more when they are not", () => {
    using r = rig(2 * CHUNK, 100 * CHUNK);
    r.cache.keepWithin(undefined, true);
    expect([r.hits(10), r.hits(10)]).toEqual([0, 10]);
    r.cache.keepWithin();
    for (let chunk = 10; chunk < 20; chunk++) r.want(chunk);
    expect(r.cache.byteLength).toBe(10 * CHUNK);
  });

  test("does not grow for chunks that come once, one after another", () => {
    using r = rig(2 * CHUNK, 100 * CHUNK);
    for (let chunk = 0; chunk < 50; chunk++) {
      expect([r.want(chunk), r.want(chunk)]).toEqual(["decoded", "kept"]);
    }
    expect(r.cache.byteLength).toBe(2 * CHUNK);
  });

  test("ends where the machine has nothing to spare", () => {
    using r = rig(CHUNK, 3 * CHUNK);
    for (let round = 0; round < 20; round++) r.hits(10);
    expect(r.cache.byteLength).toBe(4 * CHUNK);
    expect(r.room.spare).toBe(0);
  });

  test("is what the caller sets, below what there was first and above", () => {
    using r = rig(4 * CHUNK, 100 * CHUNK);
    r.cache.keepWithin(6 * CHUNK);
    for (let round = 0; round < 5; round++) r.hits(10);
    expect(r.cache.byteLength).toBe(6 * CHUNK);
    r.cache.keepWithin(3 * CHUNK);
    expect(r.cache.byteLength).toBe(3 * CHUNK);
    for (let round = 0; round < 5; round++) r.hits(10);
    expect(r.cache.byteLength).toBe(3 * CHUNK);
    r.cache.keepWithin(0);
    expect([r.cache.byteLength, r.want(1)]).toEqual([0, "no room"]);
    r.cache.keepWithin();
    for (let round = 0; round < 5; round++) r.hits(10);
    expect(r.cache.byteLength).toBe(10 * CHUNK);
  });

  test("makes room for a chunk longer than all of it when that comes again", () => {
    using r = rig(CHUNK, 10 * CHUNK);
    const long = () => r.want(7, 3 * CHUNK);
    expect([long(), long(), long()]).toEqual(["no room", "decoded", "kept"]);
  });

  test("comes down when the machine lacks memory, and not below what there was first", () => {
    using r = rig(4 * CHUNK, 100 * CHUNK);
    for (let round = 0; round < 3; round++) r.hits(20);
    expect(r.cache.byteLength).toBe(20 * CHUNK);
    r.room.lacking = 5 * CHUNK;
    r.cache.keepWithin();
    expect(r.cache.byteLength).toBe(15 * CHUNK);
    r.room.lacking = 1000 * CHUNK;
    r.cache.keepWithin();
    expect(r.cache.byteLength).toBe(4 * CHUNK);
  });

  test("is kept to once what is in use is given back", () => {
    using r = rig(4 * CHUNK);
    const places = [0, 1, 2].map((chunk) => r.cache.acquire(r.owner, chunk, CHUNK)!);
    for (const { index } of places) Atomics.store(r.cache.states, index, PlaceState.ready);
    r.cache.keepWithin(CHUNK);
    expect(r.cache.byteLength).toBe(3 * CHUNK);
    for (const place of places) r.cache.release(place);
    expect(r.cache.byteLength).toBe(CHUNK);
    expect([r.want(0), r.want(1), r.want(2)]).toEqual(["decoded", "decoded", "decoded"]);
  });
});

test("room is asked for with what was promised and is not yet written to", () => {
  using r = rig(CHUNK, 100 * CHUNK);
  r.hits(4);
  const [first] = [0, 1].map((chunk) => r.cache.acquire(r.owner, chunk, CHUNK)!);
  expect(r.room.promised).toBe(CHUNK);
  Atomics.store(r.cache.states, first!.index, PlaceState.ready);
  r.cache.release(first!);
  r.cache.acquire(r.owner, 2, CHUNK);
  expect(r.room.promised).toBe(CHUNK);
});

describe("places", () => {
  test("take no more than whole pages of what they hold", () => {
    using r = rig(100 * CHUNK);
    r.want(0, 1);
    r.want(1, PAGE);
    r.want(2, 5 * PAGE + 1);
    expect(r.cache.byteLength).toBe(8 * PAGE);
  });

  test("go over to chunks of nearly their length, and are made anew for others", () => {
    using r = rig(10 * PAGE);
    r.want(0, 10 * PAGE);
    const { address } = r.owner.places.get(0)!;
    r.want(1, 8 * PAGE);
    expect(r.owner.places.get(1)!.address).toBe(address);
    expect(r.cache.byteLength).toBe(10 * PAGE);
    r.want(2, 2 * PAGE);
    expect(r.cache.byteLength).toBe(2 * PAGE);
  });

  test("in use stay, and the rest is not given up for what finds no room all the same", () => {
    using r = rig(4 * CHUNK);
    const held = r.cache.acquire(r.owner, 0, 3 * CHUNK)!;
    r.want(1);
    expect(r.want(2, 2 * CHUNK)).toBe("no room");
    expect(r.want(1)).toBe("kept");
    expect(r.owner.places.get(0)).toBe(held);
    r.cache.release(held);
  });

  test("whose chunk did not decode are empty again, and gone", () => {
    using r = rig(4 * CHUNK);
    r.cache.release(r.cache.acquire(r.owner, 0, CHUNK)!);
    expect([r.owner.places.size, r.cache.byteLength]).toEqual([0, 0]);
    expect(r.want(0)).toBe("decoded");
  });

  test("of a file that is dropped go with it, those in use when they are released", () => {
    using r = rig(2 * CHUNK, 100 * CHUNK);
    r.hits(4);
    const held = r.cache.acquire(r.owner, 3, CHUNK)!;
    r.cache.drop(r.owner);
    expect([r.owner.places.size, r.cache.byteLength]).toEqual([0, CHUNK]);
    // Nothing of it is gone any more, so that nothing grows for it.
    expect(r.owner.gone.delete(0)).toBe(false);
    const again = r.cache.acquire(r.owner, 3, CHUNK)!;
    expect(again).not.toBe(held);
    r.cache.release(held);
    expect(r.owner.places.get(3)).toBe(again);
    r.cache.release(again);
  });

  test("of a file that is dropped after all was closed were given back already", () => {
    using r = rig(4 * CHUNK);
    r.hits(3);
    r.cache.close();
    r.cache.drop(r.owner);
    expect(r.cache.byteLength).toBe(0);
  });

  test("of a file that is dropped are asked for again by the next one", () => {
    using r = rig(2 * CHUNK, 8 * CHUNK);
    r.cache.keepWithin(undefined, true);
    expect([r.hits(10), r.hits(10)]).toEqual([0, 10]);
    r.cache.drop(r.owner);
    r.room.spare = 3 * CHUNK;
    r.hits(10);
    expect(r.cache.byteLength).toBe(5 * CHUNK);
  });

  test("that the system has no memory for are no room", () => {
    using r = rig(4 * CHUNK, 0, [{ call: "mmap", nth: 2, errno: "ENOMEM" }]);
    expect([r.want(0), r.want(1), r.want(2), r.want(0)]).toEqual(["decoded", "no room", "decoded", "kept"]);
  });
});

test("a bit for each chunk tells those that had to go", () => {
  const bits = new ChunkBits(20);
  for (const chunk of [0, 7, 8, 19]) bits.add(chunk);
  expect([0, 1, 7, 8, 9, 18, 19].map((chunk) => bits.delete(chunk))).toEqual([
    true,
    false,
    true,
    true,
    false,
    false,
    true,
  ]);
  expect(bits.delete(7)).toBe(false);
  bits.add(3);
  bits.clear();
  expect(bits.delete(3)).toBe(false);
});
