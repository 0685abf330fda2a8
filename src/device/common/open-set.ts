/** What a device has open, so that closing it closes them. */

/** Something that its device closes with itself, if it still exists by then. */
export interface Closable {
  close(): void;
}

/** What a device has open, without keeping alive what its owner forgot. */
export class OpenSet<T extends Closable> {
  readonly #refs = new Map<number, WeakRef<T>>();
  #nextId = 0;
  #pruneAt = 256;

  /** Returns the id to pass to {@link OpenSet.delete}. */
  add(item: T): number {
    if (this.#refs.size >= this.#pruneAt) this.#prune();
    const id = this.#nextId++;
    this.#refs.set(id, new WeakRef(item));
    return id;
  }

  delete(id: number): void {
    this.#refs.delete(id);
  }

  closeAll(): void {
    for (const ref of [...this.#refs.values()]) ref.deref()?.close();
    this.#refs.clear();
  }

  /** Drops what was collected. The bound doubles with the rest, so that each `add` costs O(1). */
  #prune(): void {
    for (const [id, ref] of this.#refs) if (ref.deref() === undefined) this.#refs.delete(id);
    this.#pruneAt = Math.max(256, this.#refs.size * 2);
  }
}
