import { describe, expect, test } from "bun:test";
import { checkFunctionConstants } from "../../../src/device/cuda/function-constants.ts";
import { convertKernel } from "../../../src/kernels/convert.ts";
import { padAndMaskKernel } from "../../../src/kernels/pad.ts";

const TWO = `/* HR_FUNCTION_CONSTANT(8, int32_t, no); */
HR_FUNCTION_CONSTANT(0, uint32_t, A); // HR_FUNCTION_CONSTANT(9, bool, no)
HR_FUNCTION_CONSTANT ( 12 , float, B);`;

/** The code and message of what is thrown for values of `indices`; undefined where nothing is. */
function verdict(text: string, ...indices: number[]): unknown {
  const constants = indices.map((index) => ({ index, type: "uint", value: 1 }) as const);
  try {
    checkFunctionConstants("k", text, constants);
    return undefined;
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    return `${code} ${message}`;
  }
}

describe("function constants of a text", () => {
  test("one without a value is told by its index", () => {
    const message = (index: number) =>
      `BAD_KERNEL kernel k: its text has a function constant without a value; give functionConstants index ${index}`;
    expect(verdict(TWO)).toBe(message(0));
    expect(verdict(TWO, 0)).toBe(message(12));
    expect(verdict(TWO, 12, 0)).toBeUndefined();
  });

  test("a value that the text has no constant for is refused, with those that it has", () => {
    const message = (index: number, has: string) =>
      `BAD_OPTION kernel k: function constant ${index} is not in its text, which has ${has}; leave it out, or correct its index`;
    for (const index of [1, 2, 8, 9]) expect(verdict(TWO, 0, 12, index)).toBe(message(index, "0, 12"));
    expect(verdict("int x;", 3)).toBe(message(3, "none"));
  });

  test("what macros and conditions hide is the compiler's to judge", () => {
    expect(verdict("#define C(i) HR_FUNCTION_CONSTANT(i, bool, c)\nC(4);", 4)).toBeUndefined();
    expect(verdict("#ifdef X\nHR_FUNCTION_CONSTANT(4, bool, c);\n#endif")).toBeUndefined();
    expect(verdict("#ifdef HR_FUNCTION_CONSTANT_4\n#endif", 4)).toBeUndefined();
  });

  test("the library's own kernels have theirs", () => {
    const kernels = [padAndMaskKernel(4), convertKernel({ from: "F32", to: "F16" })];
    for (const { name, text, functionConstants = [] } of kernels) {
      expect(functionConstants.length).toBeGreaterThan(0);
      expect(() => checkFunctionConstants(name, text!, functionConstants)).not.toThrow();
      expect(() => checkFunctionConstants(name, text!, functionConstants.slice(1))).toThrow("index 0");
    }
  });
});
