/** Safetensors files that are nearly right: valid ones with a few edits where it hurts. */
import fc from "fast-check";
import { byteLengthOf, DTYPES, dtypeBits } from "../../src/format/dtype.ts";
import { encodeHeader } from "../../src/format/safetensors-header.ts";

const tensors = fc.uniqueArray(
  fc
    .record({
      name: fc.oneof(
        fc.constantFrom("a", "b", "a.offsets", "__proto__", "é", ""),
        fc.string({ maxLength: 6 }),
      ),
      dtype: fc.constantFrom(...DTYPES),
      dims: fc.array(fc.nat(4), { maxLength: 3 }),
    })
    .map(({ name, dtype, dims }) => {
      const shape = dtypeBits(dtype) < 8 ? [...dims, 4] : dims;
      return { name, dtype, shape, byteLength: byteLengthOf(dtype, shape) };
    }),
  { selector: ({ name }) => name, maxLength: 5 },
);

const metadata = fc.option(fc.dictionary(fc.constantFrom("format", "k", "é"), fc.string({ maxLength: 4 })));

/** A valid file: header padded to 8 bytes, then noise. */
export const validFile = fc.tuple(tensors, metadata, fc.nat(255)).map(([specs, meta, noise]) => {
  const named = specs.filter(({ name }) => name !== "__metadata__" && !/^__pad_\d+__$/.test(name));
  const { header, dataByteLength } = encodeHeader(named, meta ?? {}, { alignment: 8 });
  const file = new Uint8Array(header.length + dataByteLength).fill(noise);
  file.set(header);
  return file;
});

const NUMBERS = [
  ..."-1 -0 0 00 1 2 3 4 8 1.0 1e2 1E400 127 128 255 256 65535 4294967295 4294967296".split(" "),
  ..."281474976710656 9007199254740991 9007199254740992 9223372036854775807 18446744073709551615".split(" "),
  ...'18446744073709551616 99999999999999999999999 NaN null true [] {} "1"'.split(" "),
];
const WORDS = [
  ...DTYPES.map((dtype) => `"${dtype}"`),
  ...'{ } [ ] , : " \\ \\u0061 \\ud800 \\x "dtype" "shape" "data_offsets" "__metadata__" "a"'.split(" "),
  ..."[0,0] [1,0] [0,18446744073709551615] {} [[[[[[[[ null \u0000 \ufeff é 😀".split(" "),
  " ",
  "\n",
  '"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},',
  '"__metadata__":{"k":"v"},',
];

type Edit = (header: string, place: number) => string;

const splice = (text: string, at: number, removed: number, added: string) =>
  text.slice(0, at) + added + text.slice(at + removed);

/** The `place`-th match of `pattern`, wrapped around, replaced. */
function replaceNth(text: string, pattern: RegExp, place: number, added: string): string {
  const matches = [...text.matchAll(pattern)];
  const match = matches[place % Math.max(matches.length, 1)];
  return match === undefined ? text : splice(text, match.index, match[0].length, added);
}

const anyEdit: fc.Arbitrary<Edit> = fc.oneof(
  fc.constantFrom(...NUMBERS).map(
    (word): Edit =>
      (text, place) =>
        replaceNth(text, /-?\d+/g, place, word),
  ),
  fc.constantFrom(...WORDS).map(
    (word): Edit =>
      (text, place) =>
        replaceNth(text, /"[^"]*"/g, place, word),
  ),
  fc.constantFrom(...WORDS).map(
    (word): Edit =>
      (text, place) =>
        splice(text, place % (text.length + 1), 0, word),
  ),
  fc.nat(8).map(
    (n): Edit =>
      (text, place) =>
        splice(text, place % (text.length + 1), n, ""),
  ),
  fc.nat(40).map(
    (n): Edit =>
      (text, place) => {
        const at = place % (text.length + 1);
        return splice(text, at, 0, text.slice(at, at + n));
      },
  ),
);

/** Keeps the JSON right, so that it is the numbers that are judged. */
const smallNumber = fc.nat(12).map(
  (n): Edit =>
    (text, place) =>
      replaceNth(text, /\b\d+\b/g, place, String(n)),
);
const edit = fc.oneof(anyEdit, smallNumber);

const edits = fc.array(fc.tuple(edit, fc.nat(2000)), { maxLength: 3 });
/** Added to the header's length field, and to the data section. */
const slip = fc.oneof(
  { weight: 6, arbitrary: fc.constant(0) },
  { weight: 1, arbitrary: fc.integer({ min: -20, max: 20 }) },
);
const flips = fc.array(fc.tuple(fc.nat(2000), fc.nat(255)), { maxLength: 2 });

/** A valid file after up to three edits of its header, wrong lengths, and flipped bytes. */
export const mutant = fc
  .tuple(validFile, edits, slip, slip, fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, flips))
  .map(([file, changes, lengthSlip, dataSlip, bytes]) => {
    const view = new DataView(file.buffer);
    const dataStart = 8 + Number(view.getBigUint64(0, true));
    let text = new TextDecoder().decode(file.subarray(8, dataStart));
    for (const [change, place] of changes) text = change(text, place);
    const header = new TextEncoder().encode(text);
    const dataLength = Math.max(0, file.length - dataStart + dataSlip);
    const result = new Uint8Array(8 + header.length + dataLength);
    new DataView(result.buffer).setBigInt64(0, BigInt(header.length + lengthSlip), true);
    result.set(header, 8);
    for (const [at, value] of bytes) result[at % result.length] = value;
    return result;
  });
