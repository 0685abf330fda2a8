import { describe, expect, test } from "bun:test";
import { checksumKernel } from "../../../src/kernels/checksum.ts";
import { convertKernel } from "../../../src/kernels/convert.ts";
import { gatherKernel } from "../../../src/kernels/gather.ts";
import { moveKernel } from "../../../src/kernels/move.ts";
import { padAndMaskKernel } from "../../../src/kernels/pad.ts";
import { argumentsOf } from "../../../src/kernels/signature.ts";

const TEXT = `
struct Own { float x; };
// HR_KERNEL(commented, HR_IN(0, uint8_t, a)) { }
HR_KERNEL(first, HR_IN(0, uint32_t, from), HR_OUT(1, Own, to), HR_CONSTANTS(2, Own, c)) {
  if (hr_thread < hr_threads) to[hr_thread] = c;
}
HR_KERNEL(second,
          HR_OUT(0, hr_bfloat, bytes)) { bytes[0] = hr_to_bfloat(1.0f); }
HR_KERNEL(gap, HR_IN(1, float, a)) { }
`;

describe("the arguments of a kernel", () => {
  test("by kind, type and alignment, in their order", () => {
    expect(argumentsOf(TEXT, "first")).toEqual([
      { kind: "in", type: "uint32_t", alignment: 4 },
      { kind: "out", type: "Own", alignment: undefined },
      { kind: "constants", type: "Own", alignment: undefined },
    ]);
    expect(argumentsOf(TEXT, "second")).toEqual([{ kind: "out", type: "hr_bfloat", alignment: 2 }]);
  });

  test("of what is not there, or not as the header has it, nothing is said", () => {
    for (const name of ["third", "commented", "gap"]) expect(argumentsOf(TEXT, name)).toBeUndefined();
  });

  test("of every kernel of the project's own", () => {
    const kernels = [
      checksumKernel,
      gatherKernel,
      moveKernel,
      padAndMaskKernel(4),
      convertKernel({ from: "F32", to: "BF16" }),
    ];
    for (const { name, text } of kernels) {
      const found = argumentsOf(text!, name);
      expect({ name, kinds: found?.map(({ kind }) => kind).at(-1) }).toEqual({ name, kinds: "constants" });
    }
  });
});
