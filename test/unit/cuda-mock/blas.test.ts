/** The product of cuBLAS in the mock. */
import { beforeEach, describe, expect, test } from "bun:test";
import { int, made } from "../../cuda-mock/symbols.ts";
import { noMock, reason, useMock } from "./rig.ts";

const [R_32F, R_16F, R_16BF] = [0, 2, 14];
const COMPUTE = 68;

describe.skipIf(noMock)(`cuBLAS in the mock of CUDA${reason}`, () => {
  const rig = useMock();
  let handle = 0;
  let stream = 0;
  beforeEach(() => {
    rig.context();
    stream = rig.stream();
    handle = made((out) => rig.cuda.cublasCreate_v2(out));
    expect(rig.cuda.cublasSetStream_v2(handle, stream)).toBe(0);
  });

  interface Product {
    readonly m: number;
    readonly n: number;
    readonly k: number;
    readonly a: number;
    readonly b: number;
    readonly c: number;
    readonly type?: number;
    readonly cType?: number;
    readonly beta?: number;
    readonly ldc?: number;
    readonly lda?: number;
  }
  function multiply({ m, n, k, a, b, c, type = R_32F, cType = R_32F, beta = 0, ldc = m, lda = k }: Product) {
    const [one, factor] = [new Float32Array([1]), new Float32Array([beta])];
    const { cublasGemmEx } = rig.cuda;
    return cublasGemmEx(
      handle,
      1,
      0,
      m,
      n,
      k,
      one,
      a,
      type,
      lda,
      b,
      type,
      k,
      factor,
      c,
      cType,
      ldc,
      COMPUTE,
      -1,
    );
  }
  const floats = (...values: number[]) => rig.upload(new Uint8Array(new Float32Array(values).buffer));
  const shorts = (...values: number[]) => rig.upload(new Uint8Array(new Uint16Array(values).buffer));
  const read = (at: number, count: number) => {
    expect(rig.cuda.cuStreamSynchronize(stream)).toBe(0);
    return [...new Float32Array(rig.download(at, 4 * count).buffer)];
  };

  test("multiplies, with a stride, and adds to what is there", () => {
    // Two rows of w, three of x.
    const w = floats(1, 2, 3, 4);
    const x = floats(1, 0, 0, 1, 1, 1);
    const y = floats(...new Array(9).fill(10));
    expect(multiply({ m: 2, n: 3, k: 2, a: w, b: x, c: y, ldc: 3 })).toBe(0);
    expect(read(y, 9)).toEqual([1, 3, 10, 2, 4, 10, 3, 7, 10]);
    expect(multiply({ m: 2, n: 3, k: 2, a: w, b: x, c: y, ldc: 3, beta: 1 })).toBe(0);
    expect(read(y, 9)).toEqual([2, 6, 10, 4, 8, 10, 6, 14, 10]);
  });

  test("takes and gives halves and bfloats, rounded to the nearest", () => {
    const y = floats(0, 0);
    // 1.5 and the least subnormal, 65504.
    expect(
      multiply({ m: 1, n: 2, k: 1, a: shorts(0x3c00), b: shorts(0x0001, 0x7bff), c: y, type: R_16F }),
    ).toBe(0);
    expect(read(y, 2)).toEqual([2 ** -24, 65504]);
    const out = rig.allocate(8);
    // Ties go to even: 1 + 2^-8 is 1 as a bfloat, and 1 + 3 * 2^-8 is 1 + 2^-6.
    const bits = shorts(0x3f80, 0x3b80, 0x3f80, 0x3c40);
    const ones = shorts(0x3f80, 0x3f80);
    expect(multiply({ m: 1, n: 2, k: 2, a: ones, b: bits, c: out, type: R_16BF, cType: R_16BF })).toBe(0);
    read(y, 1);
    expect([...new Uint16Array(rig.download(out, 4).buffer)]).toEqual([0x3f80, 0x3f82]);
    // The same in halves, and what is too large is infinite.
    const large = shorts(0x3c00, 0x1000, 0x7bff, 0x7bff);
    const both = shorts(0x3c00, 0x3c00);
    expect(multiply({ m: 1, n: 2, k: 2, a: both, b: large, c: out, type: R_16F, cType: R_16F })).toBe(0);
    read(y, 1);
    expect([...new Uint16Array(rig.download(out, 4).buffer)]).toEqual([0x3c00, 0x7c00]);
  });

  test("refuses what is none, and runs past nothing", () => {
    const w = floats(1, 2, 3, 4);
    const product = { m: 2, n: 2, k: 2, a: w, b: w, c: w };
    expect(multiply({ ...product, ldc: 1 })).toBe(7);
    expect(multiply({ ...product, lda: 1 })).toBe(7);
    expect(multiply({ ...product, m: -1 })).toBe(7);
    expect(multiply({ ...product, type: R_16F, cType: R_16BF })).toBe(15);
    expect(multiply({ ...product, type: 3 })).toBe(15);
    expect(multiply({ ...product, n: 3, c: rig.allocate(16) })).toBe(0);
    expect(rig.cuda.cuStreamSynchronize(stream)).toBe(700);
    expect(rig.mock.reports()[0]).toContain("past the end of its memory");
    expect(multiply(product)).toBe(13);
  });

  test("a workspace is the caller's, of one stream, and no two products use it at once", () => {
    const [w, y] = [floats(1, 2, 3, 4), rig.allocate(16)];
    const product = { m: 2, n: 2, k: 2, a: w, b: w, c: y };
    const workspace = rig.allocate(8192);
    expect(rig.cuda.cublasSetWorkspace_v2(handle, workspace + 16, 4096)).toBe(7);
    expect(rig.cuda.cublasSetWorkspace_v2(handle, workspace, 8192)).toBe(0);
    const capture = () => {
      expect(rig.cuda.cuStreamBeginCapture_v2(stream, 2)).toBe(0);
      const code = multiply(product);
      const out = new BigUint64Array(1);
      return [code, rig.cuda.cuStreamEndCapture(stream, out), Number(out[0])] as const;
    };
    const [code, ended, graph] = capture();
    expect([code, ended]).toEqual([0, 0]);
    expect(rig.cuda.cublasSetStream_v2(handle, stream)).toBe(0);
    // The library's own again.
    expect(capture()[0]).toBe(13);
    const exec = made((out) => rig.cuda.cuGraphInstantiateWithFlags(out, graph, 0));
    expect(rig.cuda.cuGraphLaunch(exec, stream)).toBe(0);
    expect(read(y, 4)).toEqual([5, 11, 11, 25]);

    rig.mock.configure({ maxDelayUs: 4000, seed: 3 });
    const other = rig.stream();
    for (let i = 0; i < 100; i++) {
      rig.cuda.cuGraphLaunch(exec, stream);
      rig.cuda.cublasSetStream_v2(handle, other);
      rig.cuda.cublasSetWorkspace_v2(handle, workspace, 8192);
      multiply(product);
    }
    expect(rig.cuda.cuCtxSynchronize()).toBe(700);
    expect(rig.mock.reports().at(-1)).toContain("two products of cuBLAS ran at once");
  });

  test("tells its version, and its handles are counted", () => {
    rig.mock.configure({ cublasMajor: 12 });
    expect([0, 1, 2].map((which) => int((out) => rig.cuda.cublasGetProperty(which, out)))).toEqual([
      12, 0, 0,
    ]);
    expect(rig.cuda.cublasGetProperty(3, new Int32Array(1))).toBe(7);
    expect(rig.mock.live().blasHandles).toBe(1);
    expect(rig.cuda.cublasDestroy_v2(handle)).toBe(0);
    expect(rig.cuda.cublasDestroy_v2(handle)).toBe(1);
    expect(rig.mock.live().blasHandles).toBe(0);
  });
});
