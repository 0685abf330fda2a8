/** Lists of token numbers, as a tokenizer leaves documents: Zipf's law over the vocabulary, phrases that come again,
 * lengths that differ by the factor of twenty. */
import { Random } from "../random.ts";
import type { ShardData } from "./kinds.ts";

const VOCABULARY = 32_000;
/** Bytes of a token number. */
const BYTES = 4;
/** The exponent of Zipf's law that texts come close to. */
const EXPONENT = 1.05;
/** Places of the table that turns random numbers into tokens. */
const TABLE = 2 ** 16;
const PHRASES = 4096;
const LONGEST_PHRASE = 8;
/** The part of draws that bring a phrase, in 256. */
const PHRASE_SHARE = 64;
/** Tokens of a document: an even number, so that rows are whole 64-bit words. */
const LEAST = 200;
const MOST = 4000;

/** Documents of about `byteLength` bytes in shards of about `shardBytes`. */
export function* tokensOf(byteLength: number, shardBytes: number, seed: number): Generator<ShardData> {
  const random = new Random(seed);
  const table = zipfTable(random);
  const phrases = Array.from({ length: PHRASES }, () =>
    Int32Array.from(
      { length: 2 + random.below(LONGEST_PHRASE - 1) },
      () => table[random.u32() & (TABLE - 1)]!,
    ),
  );
  for (let left = byteLength; left > 0; ) {
    const lengths = lengthsFor(Math.min(left, shardBytes), random);
    const offsets = new Int32Array(lengths.length + 1);
    lengths.forEach((length, i) => {
      offsets[i + 1] = offsets[i]! + length;
    });
    const values = new Int32Array(offsets.at(-1)!);
    fill(values, table, phrases, random);
    left -= values.byteLength;
    yield {
      numRows: lengths.length,
      column: "tokens",
      dtype: "I32",
      elementBytes: BYTES,
      values: new Uint8Array(values.buffer),
      offsets,
    };
  }
}

/** Lengths whose logarithm is spread evenly. */
function lengthsFor(byteLength: number, random: Random): number[] {
  const lengths: number[] = [];
  for (let left = byteLength / BYTES; left > 0; ) {
    const length = 2 * Math.round((LEAST * (MOST / LEAST) ** random.unit()) / 2);
    lengths.push(length);
    left -= length;
  }
  return lengths;
}

/** Tokens, each as often as the law has it; which number is how frequent is left to chance. */
function zipfTable(random: Random): Int32Array {
  const names = random.shuffle(Int32Array.from({ length: VOCABULARY }, (_, i) => i));
  const cumulative = new Float64Array(VOCABULARY);
  let total = 0;
  for (let rank = 0; rank < VOCABULARY; rank++) {
    total += 1 / (rank + 1) ** EXPONENT;
    cumulative[rank] = total;
  }
  const table = new Int32Array(TABLE);
  for (let place = 0, rank = 0; place < TABLE; place++) {
    while (cumulative[rank]! < ((place + 0.5) / TABLE) * total) rank++;
    table[place] = names[rank]!;
  }
  return table;
}

function fill(values: Int32Array, table: Int32Array, phrases: readonly Int32Array[], random: Random): void {
  for (let at = 0; at < values.length; ) {
    const pick = random.u32();
    if (pick >>> 24 < PHRASE_SHARE) {
      const phrase = phrases[pick & (PHRASES - 1)]!;
      for (let i = 0; i < phrase.length && at < values.length; i++) values[at++] = phrase[i]!;
    } else values[at++] = table[pick & (TABLE - 1)]!;
  }
}
