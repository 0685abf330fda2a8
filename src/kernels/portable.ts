/// <reference path="./text.d.ts" />
/**
 * The header that comes before every kernel text: it gives one text the same meaning for Metal, CUDA and C++.
 *
 * A kernel text holds one kernel or several, and the functions and structs that they use. The `text` of a
 * `KernelSource` is such a text without the header, which the device puts in front, and its `name` one of the kernels:
 *
 * ```c
 * struct Scale { float factor; uint32_t count; };
 *
 * HR_KERNEL(scale, HR_IN(0, hr_bfloat, from), HR_OUT(1, float, to), HR_CONSTANTS(2, Scale, c)) {
 *   if (hr_thread < c.count) to[hr_thread] = hr_float(from[hr_thread]) * c.factor;
 * }
 * ```
 *
 * A dispatch's buffers are arguments 0, 1, … in its order, and its constants come after them. `threads` is how many
 * threads are asked for; they run in threadgroups of {@link GROUP_SIZE}. What a text may use stands in the header.
 * Lines of compiler errors count in the text.
 */
import header from "./portable.h" with { type: "text" };

/** Comes before a kernel text, and ends with a line of its own. */
export const portableHeader: string = header;

/** Threads of a threadgroup; the last one of a dispatch may have fewer. */
export const GROUP_SIZE = 256;
