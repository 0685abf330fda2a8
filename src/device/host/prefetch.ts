/** Brings pages of mappings into memory ahead of their use, by the lanes. */
import type { LaneRun, LaneSet } from "./jobs.ts";
import type { Region } from "./memory.ts";
import { ENTRY, Field, LaneOp } from "./ring.ts";

/** Hints that wait for a lane; later ones are dropped, since what comes too late helps nobody. */
const MAX_PREFETCHES = 64;

export class Prefetches {
  readonly #lanes: LaneSet;
  readonly #pieceBytes: number;
  readonly #runs = new Set<LaneRun>();

  constructor(lanes: LaneSet, pieceBytes: number) {
    this.#lanes = lanes;
    this.#pieceBytes = pieceBytes;
  }

  /** Asks for `[address, address + byteLength)` of `region`, whole pages; never fails. */
  start(region: Region, address: number, byteLength: number): void {
    if (this.#runs.size >= MAX_PREFETCHES) return;
    const program = new Float64Array(ENTRY);
    program[Field.op] = LaneOp.populate;
    program[Field.source] = address;
    program[Field.byteLength] = byteLength;
    const numPieces = Math.ceil(byteLength / this.#pieceBytes);
    const ended = () => {
      this.#runs.delete(run);
      region.release();
    };
    let run: LaneRun;
    try {
      run = this.#lanes.start({ program, first: 0, end: 1, numPieces, lanesWanted: numPieces, ended });
    } catch {
      // A hint must not fail; whoever needs the bytes learns that the lanes are gone.
      return;
    }
    this.#runs.add(run);
    region.retain();
  }

  /** Gives up what has not started. */
  stop(): void {
    for (const run of this.#runs) this.#lanes.stop(run);
  }
}
