/** Kernels in the mock of CUDA: run in blocks, each access checked. */
import { beforeEach, describe, expect, test } from "bun:test";
import { portableHeader } from "../../../src/kernels/portable.ts";
import { addressOf, int, made } from "../../cuda-mock/symbols.ts";
import { noMock, PAGE, pointers, reason, u32, u64, useMock } from "./rig.ts";

/** A compiler has to start. */
const SLOW = 60_000;

const SUM = `
struct Count { uint32_t count; uint32_t factor; };
HR_KERNEL(sum, HR_IN(0, uint32_t, from), HR_OUT(1, uint32_t, to), HR_CONSTANTS(2, Count, c)) {
  HR_SHARED(uint32_t, partial, HR_GROUP_SIZE / HR_SIMD_WIDTH);
  uint32_t value = hr_thread < hr_threads && hr_thread < c.count ? from[hr_thread] * c.factor : 0u;
  value = hr_simd_sum(value);
  if (hr_local % HR_SIMD_WIDTH == 0) partial[hr_local / HR_SIMD_WIDTH] = value;
  HR_BARRIER();
  if (hr_local != 0) return;
  uint32_t total = 0;
  for (uint32_t i = 0; i < HR_GROUP_SIZE / HR_SIMD_WIDTH; i++) total += partial[i];
  to[hr_group] = total;
}
`;

describe.skipIf(noMock)(`kernels in the mock of CUDA${reason}`, () => {
  const rig = useMock();
  beforeEach(() => void rig.context());

  test(
    "a kernel of the portable text sums with simdgroups, barriers and shared memory",
    () => {
      const sum = rig.kernel(rig.load(portableHeader + SUM), "sum");
      const count = 256 * 40;
      const from = Uint32Array.from({ length: count }, (_, i) => (i * 2654435761) >>> 7);
      const source = rig.upload(new Uint8Array(from.buffer));
      const to = rig.allocate(40 * 4);
      for (let run = 0; run < 3; run++) {
        expect(rig.launch(sum, 40, 256, [u64(source), u64(to), u32(count - 100, 3), u32(count)])).toBe(0);
        const got = new Uint32Array(rig.download(to, 160).slice().buffer);
        const want = Array.from({ length: 40 }, (_, block) =>
          from
            .subarray(block * 256, Math.min((block + 1) * 256, count - 100))
            .reduce((total, value) => (total + Math.imul(value, 3)) >>> 0, 0),
        );
        expect([...got]).toEqual(want);
      }
      expect(int((out) => rig.cuda.cuFuncGetAttribute(out, 0, sum))).toBe(256);
      expect(int((out) => rig.cuda.cuFuncGetAttribute(out, 1, sum))).toBeGreaterThanOrEqual(32);
    },
    SLOW,
  );

  test(
    "addresses from tables in memory work, of device memory and of registered host memory",
    () => {
      const gather = rig.kernel(
        rig.load(`struct Row { const unsigned char *from; unsigned char *to; unsigned bytes, unused; };
          extern "C" __global__ void gather(const Row *rows, unsigned count) {
            unsigned row = blockIdx.x;
            if (row >= count) return;
            for (unsigned i = threadIdx.x; i < rows[row].bytes; i += blockDim.x) rows[row].to[i] = rows[row].from[i];
          }`),
        "gather",
      );
      const near = rig.pinned(PAGE);
      near.bytes.forEach((_, i) => {
        near.bytes[i] = i * 7;
      });
      const far = rig.upload(near.bytes);
      const to = rig.allocate(300);
      const table = new DataView(new ArrayBuffer(72));
      const rows = [near.address + 11, far + 500, near.address + PAGE - 100];
      for (const [index, from] of rows.entries()) {
        table.setBigUint64(index * 24, BigInt(from), true);
        table.setBigUint64(index * 24 + 8, BigInt(to + index * 100), true);
        table.setUint32(index * 24 + 16, 100, true);
      }
      const listed = rig.upload(new Uint8Array(table.buffer));
      expect(rig.launch(gather, 4, 64, [u64(listed), u32(3)])).toBe(0);
      const want = [11, 500, PAGE - 100].flatMap((at) => [...near.bytes.subarray(at, at + 100)]);
      expect([...rig.download(to, 300)]).toEqual(want);
    },
    SLOW,
  );

  test(
    "warps exchange values by CUDA's rules",
    () => {
      const shuffles = rig.kernel(
        rig.load(`extern "C" __global__ void shuffles(unsigned *to) {
            unsigned lane = threadIdx.x % 32, all = 0xffffffffu;
            unsigned *mine = to + threadIdx.x * 8;
            mine[0] = __shfl_sync(all, lane * 2, 5);
            mine[1] = __shfl_down_sync(all, lane, 3);
            mine[2] = __shfl_up_sync(all, lane, 3);
            mine[3] = __shfl_xor_sync(all, lane, 1);
            mine[4] = __ballot_sync(all, lane % 3 == 0);
            mine[5] = __any_sync(all, lane == 31);
            mine[6] = __all_sync(all, lane != 31);
            unsigned low = lane < 8 ? __shfl_sync(0xffu, lane + 50, 7) : __shfl_sync(0xffffff00u, lane + 90, 8);
            __syncwarp();
            mine[7] = low;
          }`),
        "shuffles",
      );
      const to = rig.allocate(64 * 32);
      expect(rig.launch(shuffles, 1, 64, [u64(to)])).toBe(0);
      const got = new Uint32Array(rig.download(to, 64 * 32).slice().buffer);
      for (let thread = 0; thread < 64; thread++) {
        const lane = thread % 32;
        const votes = 0x49249249;
        expect([...got.subarray(thread * 8, thread * 8 + 8)]).toEqual([
          10,
          lane + 3 < 32 ? lane + 3 : lane,
          lane >= 3 ? lane - 3 : lane,
          lane ^ 1,
          votes >>> 0,
          1,
          0,
          lane < 8 ? 57 : 98,
        ]);
      }
    },
    SLOW,
  );

  test(
    "1,024 threads, three axes, atomics, bits and vectors",
    () => {
      const loaded = rig.load(`extern "C" __global__ void axes(unsigned long long *total, uint4 *last) {
          unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
          unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
          atomicAdd(total, (unsigned long long)block * 1024 + thread);
          __syncthreads();
          if (block == 5 && thread == 1023)
            *last = make_uint4(threadIdx.x, threadIdx.z, __popc(0xff00ffu), __funnelshift_r(0x1234u, 0xabcdu, 8));
        }`);
      const axes = rig.kernel(loaded, "axes");
      const total = rig.upload(new Uint8Array(8));
      const last = rig.allocate(16);
      const list = pointers([u64(total), u64(last)].map(addressOf));
      expect(rig.cuda.cuLaunchKernel(axes, 3, 2, 1, 8, 16, 8, 0, 0, list, null)).toBe(0);
      const sum = new BigUint64Array(rig.download(total, 8).slice().buffer)[0];
      expect(sum).toBe(BigInt((6144 * 6143) / 2));
      expect([...new Uint32Array(rig.download(last, 16).slice().buffer)]).toEqual([7, 7, 16, 0xcd000012]);
    },
    SLOW,
  );

  test(
    "launches that no device would run are refused",
    () => {
      const module =
        rig.load(`extern "C" __global__ void __launch_bounds__(128) bound(unsigned *to) { to[0] = 1; }
        extern "C" __global__ void free(unsigned *to) { __shared__ unsigned held[64]; held[0] = 1; to[0] = held[0]; }`);
      const [bound, free] = [rig.kernel(module, "bound"), rig.kernel(module, "free")];
      const to = [u64(rig.allocate(64))];
      expect(rig.launch(bound, 1, 129, to)).toBe(1);
      expect(rig.launch(bound, 1, 128, to)).toBe(0);
      expect(rig.launch(free, 1, 1025, to)).toBe(1);
      expect(rig.launch(free, 0, 32, to)).toBe(1);
      expect(rig.launch(free, 1, 0, to)).toBe(1);
      expect(rig.launch(free, 1, 32, to, 48 * 1024)).toBe(1);
      expect(rig.cuda.cuFuncSetAttribute(free, 8, 300 * 1024)).toBe(1);
      expect(rig.cuda.cuFuncSetAttribute(free, 8, 100 * 1024)).toBe(0);
      expect(rig.launch(free, 1, 32, to, 100 * 1024)).toBe(0);
      expect(
        rig.cuda.cuLaunchKernel(free, 1, 65536, 1, 1, 1, 1, 0, 0, pointers(to.map(addressOf)), null),
      ).toBe(1);
      expect(rig.cuda.cuLaunchKernel(free, 1, 1, 1, 1, 1, 1, 0, 0, null, null)).toBe(1);
      expect(rig.launch(99, 1, 1, to)).toBe(400);
      expect(rig.cuda.cuCtxSynchronize()).toBe(0);
      expect(rig.mock.reports().join()).toContain("launch bounds");
      made((at) => rig.cuda.cuCtxCreate_v2(at, 0, 1));
      expect(rig.launch(free, 1, 32, to)).toBe(400);
    },
    SLOW,
  );

  const ACCESS = `extern "C" __global__ void look(const unsigned *from, unsigned *to, unsigned at) {
      if (threadIdx.x == 3) to[0] = from[at];
    }
    extern "C" __global__ void wide(const unsigned char *from, unsigned *to, unsigned at) {
      to[0] = *(const unsigned *)(from + at);
    }
    extern "C" __global__ void hang(const unsigned *from, unsigned *to, unsigned at) {
      if (threadIdx.x < 16) to[0] = __shfl_sync(0xffffffffu, at, 0);
      else __syncthreads();
      __syncthreads();
    }
    extern "C" __global__ void copy(const unsigned *from, unsigned *to, unsigned at) {
      memcpy(to, from, at);
    }
    extern "C" __global__ void stop(const unsigned *from, unsigned *to, unsigned at) { __trap(); }`;

  /** One launch over 256 bytes of device memory, 256 of writable host memory: the code, and the report. */
  function access(name: string, pick: (far: number, near: number) => readonly [number, number, number]) {
    const [far, near] = [rig.allocate(256), rig.pinned(PAGE)];
    const [from, to, at] = pick(far, near.address);
    expect(rig.launch(rig.kernel(rig.load(ACCESS), name), 2, 64, [u64(from), u64(to), u32(at)])).toBe(0);
    return [rig.cuda.cuCtxSynchronize(), rig.mock.reports().join()] as const;
  }

  test.each([
    ["look", "within device memory", 0, (far: number) => [far, far, 63]],
    ["look", "past device memory", 700, (far: number) => [far, far, 64]],
    ["look", "a null pointer", 700, (far: number) => [0, far, 0]],
    ["look", "within host memory", 0, (far: number, near: number) => [near, far, 1023]],
    ["look", "past host memory", 700, (far: number, near: number) => [near, far, 1024]],
    ["wide", "aligned", 0, (far: number) => [far, far, 8]],
    ["wide", "not aligned", 716, (far: number) => [far, far, 6]],
    ["copy", "within", 0, (far: number, near: number) => [far, near, 256]],
    ["copy", "past the end", 700, (far: number, near: number) => [far, near, 257]],
    ["hang", "an exchange that half a warp leaves out", 719, (far: number) => [far, far, 1]],
    ["stop", "a trap", 719, (far: number) => [far, far, 0]],
  ] as const)(
    "kernel %s, %s: %i",
    (name, _what, code, pick) => {
      const [result, report] = access(name, pick as unknown as Parameters<typeof access>[1]);
      expect([result, report]).toEqual([code, code === 0 ? "" : expect.stringContaining("kernel")]);
      expect(rig.cuda.cuMemAlloc_v2(new BigUint64Array(1), 8)).toBe(code);
    },
    SLOW,
  );

  test(
    "kernels reach no memory of another context, nor what is registered as read-only to write",
    () => {
      const other = rig.allocate(64);
      const near = rig.pinned(PAGE);
      expect(rig.cuda.cuMemHostUnregister(near.address)).toBe(0);
      expect(rig.cuda.cuMemHostRegister_v2(near.address, PAGE, 1 | 2 | 8)).toBe(0);
      rig.mock.configure({ contextAfterLoss: true });
      for (const [from, to] of [
        [other, near.address],
        [near.address, near.address],
      ] as const) {
        made((out) => rig.cuda.cuCtxCreate_v2(out, 0, 0));
        expect(rig.launch(rig.kernel(rig.load(ACCESS), "look"), 1, 32, [u64(from), u64(to), u32(1)])).toBe(0);
        expect(rig.cuda.cuCtxSynchronize()).toBe(700);
      }
      expect(rig.mock.reports()).toEqual([
        expect.stringContaining("lies in no memory of the device"),
        expect.stringContaining("registered as read-only"),
      ]);
    },
    SLOW,
  );

  test(
    "arguments are taken when the kernel is launched",
    () => {
      const set = rig.kernel(
        rig.load(`struct Three { unsigned char a; unsigned long long b; float c; };
          extern "C" __global__ void set(float *to, const Three three, unsigned short add) {
            to[0] = float(three.a) + float(three.b) + three.c + float(add);
          }`),
        "set",
      );
      const to = rig.allocate(4);
      const three = new DataView(new ArrayBuffer(24));
      three.setUint8(0, 5);
      three.setBigUint64(8, 1000n, true);
      three.setFloat32(16, 0.25, true);
      const bytes = new Uint8Array(three.buffer);
      const add = new Uint8Array(new Uint16Array([300]).buffer);
      rig.mock.configure({ maxDelayUs: 20_000, seed: 9 });
      expect(rig.launch(set, 1, 1, [u64(to), bytes, add])).toBe(0);
      bytes.fill(0);
      add.fill(0);
      expect(new Float32Array(rig.download(to, 4).slice().buffer)[0]).toBe(1305.25);
    },
    SLOW,
  );
});
