/** What a run tells of itself while it goes. */
import type { BenchRecord } from "./record.ts";

/** What happens, for whoever shows it. */
export type BenchEvent =
  | { readonly kind: "step"; readonly text: string }
  | { readonly kind: "warning"; readonly text: string }
  | {
      readonly kind: "trial";
      readonly cell: string;
      readonly round: number;
      readonly done: number;
      readonly total: number;
      readonly secondsLeft: number;
    };

export interface BenchHooks {
  /** What was typed, for the record. */
  readonly command: string;
  readonly onEvent: (event: BenchEvent) => void;
  /** Takes each record as it comes; those of a run that is resumed are not given again. */
  readonly onRecord: (record: BenchRecord) => void;
  /** Ends the run with `CANCELLED`; records that were given stay good. */
  readonly signal?: AbortSignal | undefined;
  /** Records of a run that was interrupted, to go on from. */
  readonly known?: readonly BenchRecord[] | undefined;
}
