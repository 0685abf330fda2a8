/** Which tokens a slot's sequence holds: a bit each, for the repetition penalty. */
import type { KernelSource, Pipeline } from "../device/device.ts";
import type { DispatchCall } from "../device/requests.ts";
import { bindPlace, ConstantReader, checkInteger, type Place, packConstants } from "./constants.ts";
import { GROUP_SIZE } from "./portable.ts";
import { bindRows, checkThreads, ROWS_TEXT, rowsOf, type StepRows, wordsOf } from "./step.ts";

const TEXT = `${ROWS_TEXT}
struct SeenConstants { uint32_t vocab; uint32_t numSlots; uint32_t countAt; uint32_t maxRows; };

HR_KERNEL(mark_seen, HR_IN(0, uint32_t, tokens), HR_IN(1, uint32_t, positions), HR_IN(2, uint32_t, slots),
          HR_IN(3, uint32_t, info), HR_OUT(4, uint32_t, seen), HR_CONSTANTS(5, SeenConstants, c)) {
  HR_SHARED(uint32_t, starts, 1);
  if (hr_group >= c.numSlots) return;
  uint32_t rows = rows_of(info, c.countAt, c.maxRows), words = (c.vocab + 31u) / 32u;
  HR_DEVICE uint32_t *own = seen + uint64_t(hr_group) * words;
  if (hr_local == 0u) starts[0] = 0u;
  HR_BARRIER();
  for (uint32_t row = hr_local; row < rows; row += hr_group_threads) {
    if (slots[row] == hr_group && positions[row] == 0u) HR_GROUP_ATOMIC_ADD(&starts[0], 1u);
  }
  HR_BARRIER();
  if (starts[0] != 0u) {
    for (uint32_t word = hr_local; word < words; word += hr_group_threads) own[word] = 0u;
  }
  HR_BARRIER();
  for (uint32_t row = hr_local; row < rows; row += hr_group_threads) {
    uint32_t token = tokens[row];
    if (slots[row] == hr_group && token < c.vocab) HR_ATOMIC_OR(own + token / 32u, 1u << (token & 31u));
  }
}
`;

/** Words of a slot's bits. */
export function seenWords(vocab: number): number {
  return Math.ceil(vocab / 32);
}

/**
 * Buffers: tokens (int32), positions and slots (uint32), one of each a row, info, seen (uint32, `[numSlots,
 * seenWords(vocab)]`). A slot with a row of position 0 is cleared; then the bit of each row's token is set. A row whose
 * slot or token is out of range sets none.
 */
export const markSeenKernel: KernelSource = {
  name: "mark_seen",
  host: ([tokens, positions, slots, info, seen], constants) => {
    const read = new ConstantReader(constants);
    const vocab = read.uint();
    const numSlots = read.uint();
    const rows = rowsOf(info!, read.uint(), read.uint());
    const words = seenWords(vocab);
    const token = wordsOf(tokens!, rows);
    const position = wordsOf(positions!, rows);
    const slot = wordsOf(slots!, rows);
    const bits = wordsOf(seen!, numSlots * words);
    for (let row = 0; row < rows; row++) {
      const at = slot[row]! * words;
      if (position[row] === 0 && slot[row]! < numSlots) bits.fill(0, at, at + words);
    }
    for (let row = 0; row < rows; row++) {
      const one = token[row]!;
      if (slot[row]! < numSlots && one < vocab) bits[slot[row]! * words + (one >>> 5)]! |= 1 << (one & 31);
    }
  },
  text: TEXT,
};

export interface MarkSeenOptions extends StepRows {
  /** int32 at a multiple of 4 bytes. */
  readonly tokens: Place;
  /** Words at a multiple of 4 bytes, as are `slots` and `seen`. */
  readonly positions: Place;
  readonly slots: Place;
  readonly seen: Place;
  readonly vocab: number;
  /** Slots that `seen` has bits for. */
  readonly numSlots: number;
}

/** A dispatch of {@link markSeenKernel}. Throws `BAD_OPTION`, `OUT_OF_RANGE`. */
export function markSeenCall(pipeline: Pipeline, options: MarkSeenOptions): DispatchCall {
  const { tokens, positions, slots, seen, vocab, numSlots, countAt, maxRows } = options;
  checkInteger("mark_seen: vocab", vocab, 0, 2 ** 31);
  checkInteger("mark_seen: numSlots", numSlots, 0, 2 ** 24 - 1);
  const info = bindRows("mark_seen", options);
  return {
    pipeline,
    buffers: [
      bindPlace("mark_seen: tokens", tokens, maxRows * 4, 4),
      bindPlace("mark_seen: positions", positions, maxRows * 4, 4),
      bindPlace("mark_seen: slots", slots, maxRows * 4, 4),
      info,
      bindPlace("mark_seen: seen", seen, numSlots * seenWords(vocab) * 4, 4),
    ],
    constants: packConstants([vocab, numSlots, countAt, maxRows]),
    threads: checkThreads("mark_seen", maxRows, numSlots * GROUP_SIZE),
    threadsPerGroup: GROUP_SIZE,
  };
}
