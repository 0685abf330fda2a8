/** Kernels of the conformance cases, each in both forms: the host's is what the text has to compute. */
import type { DeviceBuffer, KernelSource, Pipeline } from "../../src/device/device.ts";
import type { DispatchCall } from "../../src/device/requests.ts";
import { GROUP_SIZE } from "../../src/kernels/portable.ts";

/** Adds the first byte of the constants to each of the first `threads` bytes of a buffer. */
export const ADD: KernelSource = {
  name: "add",
  host: ([bytes], constants, threads) => {
    for (let i = 0; i < threads; i++) bytes![i]! += constants[0]!;
  },
  text: `
struct Add { uint8_t value; };

HR_KERNEL(add, HR_OUT(0, uint8_t, bytes), HR_CONSTANTS(1, Add, c)) {
  if (hr_thread < hr_threads) bytes[hr_thread] = uint8_t(bytes[hr_thread] + c.value);
}
`,
};

export function addConstants(amount: number): Uint8Array {
  return Uint8Array.of(amount, 0, 0, 0);
}

export const BLOCK = GROUP_SIZE;

/** Sums of {@link BLOCK} uint32 each, modulo 2^32. */
export const BLOCK_SUMS: KernelSource = {
  name: "block_sums",
  host: ([input, sums], _constants, threads) => {
    const values = new Uint32Array(input!.buffer, input!.byteOffset, threads);
    const out = new Uint32Array(sums!.buffer, sums!.byteOffset, threads / BLOCK);
    for (let i = 0; i < threads; i++) out[Math.floor(i / BLOCK)]! += values[i]!;
  },
  text: `
HR_KERNEL(block_sums, HR_IN(0, uint32_t, values), HR_OUT(1, uint32_t, sums)) {
  HR_SHARED(uint32_t, partial, HR_GROUP_SIZE);
  partial[hr_local] = hr_thread < hr_threads ? values[hr_thread] : 0u;
  HR_BARRIER();
  for (uint32_t width = HR_GROUP_SIZE / 2; width > 0; width /= 2) {
    if (hr_local < width && hr_local + width < hr_group_threads) partial[hr_local] += partial[hr_local + width];
    HR_BARRIER();
  }
  if (hr_local == 0) sums[hr_group] = partial[0];
}
`,
};

export function blockSums(
  pipeline: Pipeline,
  input: DeviceBuffer,
  sums: DeviceBuffer,
  numBlocks: number,
): DispatchCall {
  return {
    pipeline,
    buffers: [
      { buffer: input, offset: 0 },
      { buffer: sums, offset: 0 },
    ],
    constants: new Uint8Array(0),
    threads: numBlocks * BLOCK,
    threadsPerGroup: BLOCK,
  };
}
