import { expect, test } from "bun:test";
import { matmulCall, matmulKernel } from "../../../src/kernels/matmul.ts";
import { compileKernel } from "./cxx.ts";
import { Guarded, PIPELINE, runCxx, runHost } from "./memory.ts";

test("smoke", () => {
  const f32 = (n: number, f = () => Math.random() - 0.5) => {
    const b = new Guarded(n * 4);
    new Float32Array(b.bytes.buffer).forEach((_, i, a) => void (a[i] = f()));
    return b;
  };
  const kernel = matmulKernel({ type: "F32", parts: 2, bias: true });
  const [x, w0, w1, b0, b1, y, y2] = [f32(3 * 8), f32(5 * 8), f32(7 * 8), f32(5), f32(7), f32(36), f32(36)];
  const info = new Guarded(32);
  new Uint32Array(info.bytes.buffer)[0] = 3;
  const call = (out: Guarded) =>
    matmulCall(PIPELINE, {
      ...{ type: "F32", parts: 2, bias: true, x: { buffer: x }, info: { buffer: info }, y: { buffer: out } },
      ...{ weights: [{ buffer: w0 }, { buffer: w1 }], biases: [{ buffer: b0 }, { buffer: b1 }] },
      ...{ inner: 8, outputs: [5, 7], countAt: 0, maxRows: 3 },
    });
  runHost(kernel, call(y));
  const { run } = compileKernel(kernel);
  runCxx(run, call(y2));
  const [a, b] = [y, y2].map((o) => new Float32Array(o.bytes.buffer));
  for (let i = 0; i < 36; i++) expect(b![i]).toBeCloseTo(a![i]!, 5);
});
