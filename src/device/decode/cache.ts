/**
 * Decoded chunks that were wanted in part, kept for whoever wants another part of them: bounded, least recently used
 * first out.
 *
 * Where long chunks stand side by side, as the columns of a large record batch do, a bound below all of them together
 * would have each decoded again for every batch of rows. So the bound grows by the length of a long chunk that comes
 * again after it had to go, up to a limit: memory for decoding it would be taken in any case.
 */
import type { Syscalls } from "../host/syscalls.ts";
import { LONG_CHUNK, PlaceState } from "./records.ts";

/** Memory for one decoded chunk. */
export interface Place {
  /** Of its word among the states. */
  readonly index: number;
  readonly address: number;
  /** Bytes that it can hold, and takes of the budget. */
  readonly capacity: number;
  owner: PlaceOwner;
  chunk: number;
  /** Decodings that use it. */
  users: number;
}

/** The file of the chunks; known by identity. */
export interface PlaceOwner {
  /** Its chunks that have a place. */
  readonly places: Map<number, Place>;
  /** Its long chunks that had a place, or should have had one. */
  readonly longGone: Set<number>;
}

/** Bytes of the smallest place. */
const LEAST_CAPACITY = 64 * 1024;

/** Of one pool, used on its thread alone; lanes see the places' states and memory. */
export class ChunkCache {
  /** One word a place, and a last one for the pool's own use. */
  readonly states: Int32Array<SharedArrayBuffer>;
  readonly #limit: number;
  readonly #syscalls: Syscalls;
  readonly #freeIndexes: number[] = [];
  /** Empty places by capacity, which keep their memory. */
  readonly #empty = new Map<number, Place[]>();
  /** All others, least recently used first. */
  readonly #used = new Set<Place>();
  #budget: number;
  #bytes = 0;

  /** `budget` in bytes, which may grow to `limit`. */
  constructor(syscalls: Syscalls, budget: number, limit = budget) {
    this.#syscalls = syscalls;
    this.#budget = budget;
    this.#limit = limit;
    const numPlaces = Math.ceil(budget / LEAST_CAPACITY);
    this.states = new Int32Array(new SharedArrayBuffer((numPlaces + 1) * 4));
    for (let index = numPlaces - 1; index >= 0; index--) this.#freeIndexes.push(index);
  }

  /** Bytes of all places, the empty ones included. */
  get byteLength(): number {
    return this.#bytes;
  }

  /** The place of a chunk, whatever state it is in; the caller gives it back by {@link ChunkCache.release}. */
  find(owner: PlaceOwner, chunk: number): Place | undefined {
    const place = owner.places.get(chunk);
    if (place !== undefined) this.#use(place);
    return place;
  }

  /** As {@link ChunkCache.find}, or an empty place of `byteLength` bytes at least; undefined where there is no room beside
   * what is in use. */
  acquire(owner: PlaceOwner, chunk: number, byteLength: number): Place | undefined {
    const known = this.find(owner, chunk);
    if (known !== undefined) return known;
    const capacity = capacityFor(byteLength);
    if (owner.longGone.delete(chunk)) this.#budget = Math.min(this.#limit, this.#budget + capacity);
    const place = this.#makeRoom(capacity);
    if (place === undefined) {
      if (capacity > LONG_CHUNK) owner.longGone.add(chunk);
      return undefined;
    }
    place.owner = owner;
    place.chunk = chunk;
    Atomics.store(this.states, place.index, PlaceState.empty);
    owner.places.set(chunk, place);
    this.#use(place);
    return place;
  }

  release(place: Place): void {
    place.users--;
    if (place.users > 0) return;
    const holds = Atomics.load(this.states, place.index) === PlaceState.ready;
    if (!holds || place.owner.places.get(place.chunk) !== place) this.#forget(place);
  }

  /** Forgets the chunks of a file; places in use are kept until they are released. */
  drop(owner: PlaceOwner): void {
    owner.longGone.clear();
    for (const place of [...owner.places.values()]) {
      owner.places.delete(place.chunk);
      if (place.users === 0) this.#forget(place);
    }
  }

  /** No place may be in use. */
  close(): void {
    for (const place of this.#used) this.#free(place);
    for (const places of this.#empty.values()) for (const place of places) this.#free(place);
    this.#used.clear();
    this.#empty.clear();
  }

  #use(place: Place): void {
    place.users++;
    this.#used.delete(place);
    this.#used.add(place);
  }

  /** Makes a place empty, which nobody uses. */
  #forget(place: Place): void {
    this.#used.delete(place);
    if (place.owner.places.get(place.chunk) === place) place.owner.places.delete(place.chunk);
    const others = this.#empty.get(place.capacity);
    if (others === undefined) this.#empty.set(place.capacity, [place]);
    else others.push(place);
  }

  #makeRoom(capacity: number): Place | undefined {
    if (capacity > this.#budget) return undefined;
    for (;;) {
      const empty = this.#empty.get(capacity)?.pop();
      if (empty !== undefined) return empty;
      if (this.#bytes + capacity <= this.#budget && this.#freeIndexes.length > 0)
        return this.#allocate(capacity);
      if (!this.#giveWay()) return undefined;
    }
  }

  /** Frees memory of other capacities, or makes the least recently used place empty. Returns whether it could. */
  #giveWay(): boolean {
    for (const places of this.#empty.values()) {
      const place = places.pop();
      if (place === undefined) continue;
      this.#free(place);
      return true;
    }
    for (const place of this.#used) {
      if (place.users > 0) continue;
      if (place.capacity > LONG_CHUNK) place.owner.longGone.add(place.chunk);
      this.#forget(place);
      return true;
    }
    return false;
  }

  #allocate(capacity: number): Place | undefined {
    const address = this.#syscalls.mapAnonymous(capacity);
    if (address < 0) return undefined;
    this.#bytes += capacity;
    const owner: PlaceOwner = { places: new Map(), longGone: new Set() };
    return { index: this.#freeIndexes.pop()!, address, capacity, owner, chunk: -1, users: 0 };
  }

  #free(place: Place): void {
    this.#syscalls.unmap(place.address, place.capacity);
    this.#bytes -= place.capacity;
    this.#freeIndexes.push(place.index);
  }
}

/** Few different capacities, so that places can be reused: steps of a quarter of a power of two. */
function capacityFor(byteLength: number): number {
  const least = Math.max(byteLength, LEAST_CAPACITY);
  const step = 2 ** Math.floor(Math.log2(least)) / 4;
  return Math.ceil(least / step) * step;
}
