/** Which function constants a kernel's text has, so that one too few or too many is told by its index. */

import { HeadraceError } from "../../errors.ts";
import { withoutComments } from "../../kernels/signature.ts";
import type { FunctionConstant } from "../device.ts";

/** Throws `BAD_KERNEL` for a constant of the text that has no value, and `BAD_OPTION` for a value that the text has no
 * constant for. What macros and conditions of the text hide is left to the compiler. */
export function checkFunctionConstants(
  name: string,
  text: string,
  constants: readonly FunctionConstant[],
): void {
  const code = withoutComments(text);
  const written = [...code.matchAll(/\bHR_FUNCTION_CONSTANT\s*\(\s*([^\s,()]+)/g)].map(([, index]) => index!);
  const given = new Set(constants.map(({ index }) => String(index)));
  const missing = written.find((index) => /^\d+$/.test(index) && !given.has(index));
  if (missing !== undefined && !/^\s*#\s*if/m.test(code)) {
    const message = `kernel ${name}: its text has a function constant without a value; give functionConstants index ${missing}`;
    throw new HeadraceError("BAD_KERNEL", message);
  }
  if (written.some((index) => !/^\d+$/.test(index))) return;
  const extra = constants.find(
    ({ index }) => !written.includes(String(index)) && !code.includes(`HR_FUNCTION_CONSTANT_${index}`),
  );
  if (extra === undefined) return;
  const has = written.length === 0 ? "none" : [...new Set(written)].join(", ");
  const message = `kernel ${name}: function constant ${extra.index} is not in its text, which has ${has}; leave it out, or correct its index`;
  throw new HeadraceError("BAD_OPTION", message);
}
