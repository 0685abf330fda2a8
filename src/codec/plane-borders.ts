/** Where the elements of a safetensors file lie that is just being written: from its header, as it comes along. */
import { HeadraceError } from "../errors.ts";
import { describeSafetensors, MAX_HEADER_BYTES, PREFIX_BYTES } from "../format/safetensors.ts";
import { parseEntries } from "../format/safetensors-entries.ts";
import type { DType, TensorLayout } from "../types.ts";

/** Bytes whose planes are split alike. */
interface Run {
  readonly end: number;
  readonly width: number;
}

const WIDTHS: Partial<Record<DType, number>> = { F16: 2, BF16: 2, F32: 4 };

/** Offsets are asked for in ascending order. */
export class PlaneBorders {
  #head = new Uint8Array(0);
  #seen = 0;
  #runs: readonly Run[] | undefined;
  #at = 0;
  #fileLength = 0;

  /** Takes the next bytes of the file. Throws what reading the header throws. */
  push(bytes: Uint8Array): void {
    if (this.#runs === undefined) this.#takeHead(bytes);
    this.#seen += bytes.length;
  }

  /** Throws `DATA_INCOMPLETE` unless what came is as long as the header says. */
  end(): void {
    if (this.#runs !== undefined && this.#seen === this.#fileLength) return;
    const expected = this.#runs === undefined ? "its header is not complete" : `it has ${this.#fileLength}`;
    throw new HeadraceError(
      "DATA_INCOMPLETE",
      `${this.#seen} bytes of a safetensors file came, but ${expected}`,
    );
  }

  /** Where the run of `offset` ends; infinitely far while the header is not there, or past the last one. */
  endOf(offset: number): number {
    return this.#run(offset)?.end ?? Number.POSITIVE_INFINITY;
  }

  /** Planes of the chunk that starts at `offset`. */
  widthAt(offset: number): number {
    return this.#run(offset)?.width ?? 1;
  }

  #run(offset: number): Run | undefined {
    const runs = this.#runs;
    if (runs === undefined) return undefined;
    while (this.#at < runs.length && runs[this.#at]!.end <= offset) this.#at++;
    return runs[this.#at];
  }

  #takeHead(bytes: Uint8Array): void {
    this.#grow(bytes, PREFIX_BYTES);
    if (this.#head.length < PREFIX_BYTES) return;
    const length = new DataView(this.#head.buffer).getBigUint64(0, true);
    if (length > MAX_HEADER_BYTES) {
      throw new HeadraceError(
        "HEADER_TOO_LARGE",
        `the header claims ${length} bytes of at most ${MAX_HEADER_BYTES}; byte planes need a safetensors file`,
      );
    }
    const end = PREFIX_BYTES + Number(length);
    this.#grow(bytes, end);
    if (this.#head.length === end) this.#parse(end);
  }

  /** Makes the head as long as `wanted`, as far as what came reaches. */
  #grow(bytes: Uint8Array, wanted: number): void {
    const have = this.#head.length;
    const more = bytes.subarray(have - this.#seen, wanted - this.#seen);
    if (have >= wanted || more.length === 0) return;
    const head = new Uint8Array(have + more.length);
    head.set(this.#head);
    head.set(more, have);
    this.#head = head;
  }

  #parse(dataStart: number): void {
    const head = this.#head;
    const { entries } = parseEntries(new TextDecoder().decode(head.subarray(PREFIX_BYTES)));
    this.#fileLength = dataStart + entries.reduce((most, { end }) => Math.max(most, end), 0);
    const read = (offset: number, byteLength: number) => head.subarray(offset, offset + byteLength);
    this.#runs = runsOf(describeSafetensors(read, this.#fileLength).tensors ?? [], dataStart);
    this.#head = new Uint8Array(0);
  }
}

/** Tensors that lie together and are split alike are one run; what is between them is split not at all. */
function runsOf(tensors: readonly TensorLayout[], dataStart: number): Run[] {
  const runs: Run[] = [{ end: dataStart, width: 1 }];
  const add = (end: number, width: number) => {
    const last = runs.at(-1)!;
    if (end === last.end) return;
    // The header stays by itself, so that describing a file decodes little.
    if (runs.length > 1 && last.width === width) runs.pop();
    runs.push({ end, width });
  };
  for (const { range, dtype } of tensors) {
    add(range.start, 1);
    add(range.end, WIDTHS[dtype] ?? 1);
  }
  return runs;
}
