/** What a kernel text says of a kernel's arguments, so that launches can be checked before a GPU goes astray. */

/** An argument of a kernel, in the order of its index. */
export interface KernelArgument {
  readonly kind: "in" | "out" | "constants";
  readonly type: string;
  /** Multiple of which the address must be; undefined for a type of the text's own. */
  readonly alignment: number | undefined;
}

/** Bytes of the types that the portable header gives. */
const SIZES: Readonly<Record<string, number>> = {
  ...{ uint8_t: 1, int8_t: 1, uint16_t: 2, int16_t: 2, hr_half: 2, hr_bfloat: 2 },
  ...{ uint32_t: 4, int32_t: 4, float: 4, uint64_t: 8, int64_t: 8, hr_uint4: 16 },
};

const KINDS = { HR_IN: "in", HR_OUT: "out", HR_CONSTANTS: "constants" } as const;

/** A text without its comments. */
export function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\/|\/\/[^\n]*/g, " ");
}

/** The arguments of the kernel `name`; undefined where its `HR_KERNEL` is not found as the header has it. */
export function argumentsOf(text: string, name: string): readonly KernelArgument[] | undefined {
  const bare = withoutComments(text);
  const head = /HR_KERNEL\s*\(\s*(\w+)\s*,([^{;]*)\)\s*\{/g;
  for (const [, found, list] of bare.matchAll(head)) {
    if (found !== name) continue;
    const given = [
      ...list!.matchAll(/(HR_IN|HR_OUT|HR_CONSTANTS)\s*\(\s*(\d+)\s*,\s*([\w\s]+?)\s*,\s*\w+\s*\)/g),
    ];
    const read = given.map(([, macro, index, type]) => ({
      index: Number(index),
      kind: KINDS[macro as keyof typeof KINDS],
      type: type!,
      alignment: SIZES[type!],
    }));
    // A text that goes about it in a way of its own is left to the compiler.
    const whole = read.length > 0 && read.every(({ index }, i) => index === i);
    return whole ? read.map(({ kind, type, alignment }) => ({ kind, type, alignment })) : undefined;
  }
  return undefined;
}
