/**
 * Decoded chunks that were wanted in part, kept for whoever wants another part of them: bounded, least recently used
 * first out.
 *
 * What is read in order wants each chunk in a row and never again, for which little memory does. Rows in random order want
 * every chunk again and again, and all that does not fit is decoded for each batch of them. So the bound begins low, and
 * grows, as far as memory is to spare: for each chunk that comes again after it had to go, and where chunks are said to
 * come again for all of them.
 */
import type { Syscalls } from "../host/syscalls.ts";
import { ChunkBits } from "./chunk-bits.ts";
import { PlaceState } from "./records.ts";

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
  /** Whether its memory has not been written to yet, so that the system has given none of it so far. */
  fresh: boolean;
}

/** The file of the chunks; known by identity. */
export interface PlaceOwner {
  /** Its chunks that have a place. */
  readonly places: Map<number, Place>;
  /** Its chunks that had a place, or should have had one. */
  readonly gone: ChunkBits;
}

/** Memory that the machine has to spare. */
export interface Room {
  /** Whether `byteLength` more bytes may be taken, beside `promised` ones that the system does not know of yet. */
  grant(byteLength: number, promised: number): boolean;
  /** Bytes that should be given back; 0 for none. */
  shortage(): number;
}

/** Places at most: the system bounds the number of mappings of a process to about as many. */
const MAX_PLACES = 2 ** 16;
/** A place that becomes another chunk's is this many times as long as it needs at most. */
const MAX_SLACK = 1.25;

/** Of one pool, used on its thread alone; lanes see the places' states and memory. */
export class ChunkCache {
  /** One word a place, and a last one for the pool's own use. */
  readonly states = new Int32Array(new SharedArrayBuffer((MAX_PLACES + 1) * 4));
  readonly #syscalls: Syscalls;
  readonly #room: Room;
  readonly #freeIndexes: number[] = [];
  #numIndexes = 0;
  /** Least recently used first. */
  readonly #places = new Set<Place>();
  readonly #first: number;
  #limit = Number.POSITIVE_INFINITY;
  #comeAgain = false;
  #budget: number;
  #bytes = 0;
  /** Of the places that are in use. */
  #usedBytes = 0;
  /** Of the places that are fresh. */
  #freshBytes = 0;

  /** `first` bytes are the bound before anything has come again; `room` is asked for what goes over it. */
  constructor(syscalls: Syscalls, room: Room, first: number) {
    this.#syscalls = syscalls;
    this.#room = room;
    this.#first = first;
    this.#budget = first;
  }

  /** Bytes of all places. */
  get byteLength(): number {
    return this.#bytes;
  }

  /** Keeps `limit` bytes at most from now on, without end where it is undefined, and gives back what the machine lacks.
   * What is in use goes when it is released. `comeAgain`: whether chunks that are wanted from now on are likely to be
   * wanted again. */
  keepWithin(limit = Number.POSITIVE_INFINITY, comeAgain = false): void {
    this.#limit = limit;
    this.#comeAgain = comeAgain;
    this.#budget = Math.min(limit, Math.max(this.#budget, this.#first));
    const shortage = this.#bytes > this.#first ? this.#room.shortage() : 0;
    if (shortage > 0) this.#budget = Math.min(limit, Math.max(this.#first, this.#bytes - shortage));
    while (this.#bytes > this.#budget) {
      const victim = this.#victim();
      if (victim === undefined) break;
      this.#evict(victim);
      this.#free(victim);
    }
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
    const { pageSize } = this.#syscalls;
    const capacity = Math.ceil(byteLength / pageSize) * pageSize;
    if (owner.gone.delete(chunk) || this.#comeAgain) this.#grow(capacity);
    const place = this.#makeRoom(capacity);
    if (place === undefined) {
      owner.gone.add(chunk);
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
    this.#written(place);
    if (--place.users > 0) return;
    this.#usedBytes -= place.capacity;
    const { owner, chunk } = place;
    const known = owner.places.get(chunk) === place;
    const holds = Atomics.load(this.states, place.index) === PlaceState.ready;
    if (known && holds && this.#bytes <= this.#budget) return;
    if (known && holds) this.#evict(place);
    else if (known) owner.places.delete(chunk);
    this.#free(place);
  }

  /** Forgets the chunks of a file; places in use are kept until they are released. What was granted for them is asked for
   * again by whoever takes as much. */
  drop(owner: PlaceOwner): void {
    owner.gone.clear();
    for (const place of owner.places.values()) if (place.users === 0) this.#free(place);
    owner.places.clear();
    this.#budget = Math.min(this.#budget, Math.max(this.#first, this.#bytes));
  }

  /** No place may be in use. Files may be dropped afterwards. */
  close(): void {
    for (const place of this.#places) {
      place.owner.places.delete(place.chunk);
      this.#free(place);
    }
  }

  #use(place: Place): void {
    if (place.users++ === 0) this.#usedBytes += place.capacity;
    this.#places.delete(place);
    this.#places.add(place);
  }

  #grow(capacity: number): void {
    const missing = this.#bytes + capacity - this.#budget;
    if (missing <= 0 || this.#bytes + capacity > this.#limit) return;
    if (this.#room.grant(missing, this.#freshBytes)) this.#budget += missing;
  }

  #makeRoom(capacity: number): Place | undefined {
    if (this.#usedBytes + capacity > this.#budget) return undefined;
    while (this.#bytes + capacity > this.#budget || !this.#hasIndex) {
      const victim = this.#victim();
      if (victim === undefined) return undefined;
      this.#evict(victim);
      if (victim.capacity >= capacity && victim.capacity <= capacity * MAX_SLACK) return victim;
      this.#free(victim);
    }
    return this.#allocate(capacity);
  }

  #victim(): Place | undefined {
    for (const place of this.#places) if (place.users === 0) return place;
    return undefined;
  }

  /** Takes the chunk out of a place that nobody uses. */
  #evict(place: Place): void {
    place.owner.places.delete(place.chunk);
    place.owner.gone.add(place.chunk);
  }

  get #hasIndex(): boolean {
    return this.#freeIndexes.length > 0 || this.#numIndexes < MAX_PLACES;
  }

  #allocate(capacity: number): Place | undefined {
    const address = this.#syscalls.mapAnonymous(capacity);
    if (address < 0) return undefined;
    this.#bytes += capacity;
    this.#freshBytes += capacity;
    const owner: PlaceOwner = { places: new Map(), gone: new ChunkBits(0) };
    const index = this.#freeIndexes.pop() ?? this.#numIndexes++;
    return { index, address, capacity, owner, chunk: -1, users: 0, fresh: true };
  }

  #written(place: Place): void {
    if (place.fresh) this.#freshBytes -= place.capacity;
    place.fresh = false;
  }

  #free(place: Place): void {
    this.#written(place);
    this.#places.delete(place);
    this.#syscalls.unmap(place.address, place.capacity);
    this.#bytes -= place.capacity;
    this.#freeIndexes.push(place.index);
  }
}
