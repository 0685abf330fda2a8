/** Matrix products by cuBLAS on the CUDA device. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { CUBLAS_VARIABLE, openCublas } from "../../../src/device/cuda/cublas.ts";
import type { Device, DeviceBuffer, MatmulOptions, Pipeline } from "../../../src/device/device.ts";
import { type DispatchCall, RequestList } from "../../../src/device/requests.ts";
import { decoderOf, ELEMENT_BYTES, encoderOf } from "../../../src/kernels/elements.ts";
import { expectCode, runWell } from "../../conformance/harness.ts";
import { describeOverMock, filled, KIB, SHUFFLED, theMock, withCuda } from "./cuda-rig.ts";

type Type = MatmulOptions["type"];
const NONE = new Uint8Array(0);

/** A device with cuBLAS. */
const withBlas: typeof withCuda = (given, work) =>
  withCuda({ ...given, options: { cublas: theMock().path, ...given.options } }, work);

function create(device: Device, options: MatmulOptions): Pipeline {
  if (device.createMatmul === undefined) throw new Error("the device has no matrix products");
  return device.createMatmul(options);
}

function call(pipeline: Pipeline, buffers: readonly DeviceBuffer[], rows: number, offset = 0): DispatchCall {
  const bindings = buffers.map((buffer, index) => ({ buffer, offset: index === 2 ? offset : 0 }));
  return { pipeline, buffers: bindings, constants: NONE, threads: rows };
}

/** Numbers in the bits of `type`. */
function encoded(type: Type, values: readonly number[]): Uint8Array {
  const out = new Uint8Array(values.length * ELEMENT_BYTES[type]);
  const encode = encoderOf(type, out, values.length);
  const bits = new Uint32Array(Float32Array.from(values).buffer);
  for (const [i, word] of bits.entries()) encode(i, word);
  return out;
}

function decoded(type: Type, bytes: Uint8Array): number[] {
  const count = bytes.length / ELEMENT_BYTES[type];
  const decode = decoderOf(type, bytes.slice(), count);
  const bits = Uint32Array.from({ length: count }, (_, i) => decode(i));
  return [...new Float32Array(bits.buffer)];
}

/** Small integers, whose sums no type rounds. */
const numbers = (count: number, seed: number) =>
  Array.from({ length: count }, (_, i) => (((i + seed) * 7919) % 9) - 4);

function expected(x: readonly number[], w: readonly number[], rows: number, inner: number): number[] {
  const outputs = w.length / inner;
  return Array.from({ length: rows * outputs }, (_, at) => {
    const [row, output] = [Math.floor(at / outputs), at % outputs];
    let sum = 0;
    for (let i = 0; i < inner; i++) sum += x[row * inner + i]! * w[output * inner + i]!;
    return sum;
  });
}

describeOverMock("matrix products of the CUDA device", () => {
  test("of any shape and type, side by side, and added", () =>
    withBlas({}, async ({ device, queue, bytes }) => {
      const types = fc.constantFrom<[Type, Type]>(
        ["F32", "F32"],
        ["F16", "F32"],
        ["BF16", "F32"],
        ["BF16", "BF16"],
        ["F16", "F16"],
      );
      const size = fc.integer({ min: 1, max: 20 });
      const property = fc.asyncProperty(
        size,
        size,
        size,
        fc.integer({ min: 0, max: 3 }),
        types,
        fc.boolean(),
        async (rows, inner, outputs, gap, [type, outputType], accumulate) => {
          const [xs, ws] = [numbers(rows * inner, rows), numbers(outputs * inner, inner)];
          const outputStride = outputs + gap;
          const before = numbers(rows * outputStride, 3);
          using x = filled(device, encoded(type, xs));
          using w = filled(device, encoded(type, ws));
          using y = filled(device, encoded(outputType, before));
          const options = { inner, outputs, type, outputType, outputStride, accumulate };
          const product = create(device, options);
          await runWell(queue, (list) => list.dispatch(call(product, [x, w, y], rows)));
          const want = [...before];
          for (const [at, value] of expected(xs, ws, rows, inner).entries()) {
            const to = Math.floor(at / outputs) * outputStride + (at % outputs);
            want[to] = accumulate ? before[to]! + value : value;
          }
          expect(decoded(outputType, await bytes(y))).toEqual(want);
        },
      );
      await fc.assert(property, { numRuns: 60 });
      expect(device.facts.cublas).toStartWith("13.0, ");
    }));

  test("in sequences they stand in the graph, and graphs of several queues do not disturb one another", () =>
    withBlas({ config: { ...SHUFFLED, maxDelayUs: 2000 } }, async ({ device, mock }) => {
      const [rows, inner, outputs] = [3, 8, 5];
      const [xs, ws] = [numbers(rows * inner, 1), numbers(outputs * inner, 2)];
      const product = create(device, { inner, outputs, type: "BF16", accumulate: true });
      const w = filled(device, encoded("BF16", ws));
      const jobs = Array.from({ length: 3 }, () => {
        const [x, y] = [filled(device, encoded("BF16", xs)), device.createBuffer(rows * outputs * 4)];
        const one = call(product, [x, w, y], rows);
        return { y, queue: device.createQueue(), sequence: device.createSequence([one, one]), one };
      });
      const before = mock.calls("cublasGemmEx");
      await Promise.all(
        jobs.map(async ({ queue, sequence, one }) => {
          for (let i = 0; i < 10; i++) await runWell(queue, (list) => list.replay(sequence).dispatch(one));
        }),
      );
      expect(mock.calls("cublasGemmEx")).toBe(before + 30);
      const want = expected(xs, ws, rows, inner).map((value) => 30 * value);
      for (const { y } of jobs) expect([...new Float32Array(y.view(0, y.byteLength))]).toEqual(want);
      const { allocations } = mock.live();
      for (const { sequence } of jobs) sequence.close();
      // Each graph had memory of its own to work in.
      expect(mock.live().allocations).toBe(allocations - 3);
    }));

  test("what does not fit is refused before anything runs", () =>
    withBlas({}, async ({ device, queue, map, file }) => {
      const options = { inner: 4, outputs: 6, type: "F16" } as const;
      const bad = (change: Partial<MatmulOptions>) =>
        expectCode("BAD_OPTION", () => create(device, { ...options, ...change }));
      bad({ inner: 0 });
      bad({ outputs: 2.5 });
      bad({ outputStride: 5 });
      bad({ type: "I8" as Type });
      bad({ outputType: "BF16" });
      const product = create(device, options);
      const [x, w, y] = [3 * 4 * 2, 6 * 4 * 2, 3 * 6 * 4].map((length) => device.createBuffer(length)) as [
        DeviceBuffer,
        DeviceBuffer,
        DeviceBuffer,
      ];
      const refused = (code: "BAD_OPTION" | "OUT_OF_RANGE", one: DispatchCall, text: RegExp) => {
        const error = expectCode(code, () => queue.submit(new RequestList().dispatch(one)));
        expect(error.message).toMatch(text);
        expectCode(code, () => device.createSequence([one]));
      };
      const good = call(product, [x, w, y], 3);
      refused(
        "OUT_OF_RANGE",
        { ...good, threads: 4 },
        /x of 4 rows: bytes \[0, 32\) do not lie in its 24 bytes/,
      );
      refused("OUT_OF_RANGE", call(product, [w, x, y], 3), /w of 3 rows/);
      refused("OUT_OF_RANGE", call(product, [x, w, y], 3, 4), /y of 3 rows/);
      refused("BAD_OPTION", call(product, [x, w], 3), /2 buffers and 0 bytes of constants/);
      refused("BAD_OPTION", { ...good, constants: new Uint8Array(4) }, /3 buffers and 4 bytes/);
      refused("BAD_OPTION", call(product, [x, w, y], 2, 2), /y holds F32, .* multiple of 4 bytes/);
      const mapping = map(file("y.bin", KIB));
      refused(
        "BAD_OPTION",
        call(product, [x, w, mapping], 3),
        /y is written to, and the mapping of .*y\.bin/,
      );
      const nobody = { ...call(product, [x, w, y], 0), threads: 0 };
      await runWell(queue, (list) => list.dispatch(good).dispatch(nobody));
    }));

  test("weights may lie in a mapping", () =>
    withBlas({}, async ({ device, queue, map, file, bytes }) => {
      const w = map(file("w.bin", 64 * KIB));
      const x = filled(device, encoded("BF16", [1, 0]));
      const y = device.createBuffer(4 * 100);
      const product = create(device, { inner: 2, outputs: 100, type: "BF16" });
      await runWell(queue, (list) => list.dispatch(call(product, [x, w, y], 1)));
      const want = decoded("BF16", (await bytes(w)).subarray(0, 400)).filter((_, i) => i % 2 === 0);
      expect([...new Float32Array(y.view(0, 400))]).toEqual(want);
    }));

  test("are absent without the library, and say why where it was named", async () => {
    await withCuda({ options: { cublas: false } }, async ({ device }) => {
      expect(device.facts.cublas).toBeUndefined();
      expect(device.createMatmul).toBeUndefined();
      expect(device.facts.cublas).toBe("none: the option cublas is false");
    });
    await withCuda({ options: { cublas: "/nowhere/libcublas.so" } }, async ({ device }) => {
      const error = expectCode("UNSUPPORTED", () => create(device, { inner: 1, outputs: 1, type: "F32" }));
      expect(error.message).toContain("/nowhere/libcublas.so");
      expect(error.message).toEndWith("correct or leave out the option cublas");
    });
    const surroundings = { env: {}, local: "/nowhere", home: "/nowhere", arch: "x64" };
    const named = (path: string) => ({ ...surroundings, env: { [CUBLAS_VARIABLE]: path } });
    const { path, mock } = theMock();
    expect(openCublas({ surroundings, names: [] })).toMatchObject({ named: false, cublas: undefined });
    expect(openCublas({ surroundings: named(path) }).cublas?.path).toBe(path);
    expect(openCublas({ surroundings: named("/nowhere/x.so") })).toMatchObject({ named: true });
    const late = openCublas({ surroundings, names: [path], driverVersion: 12_040 });
    expect(late).toMatchObject({
      reason: `${path} is cuBLAS 13.0, and the driver takes CUDA 12 at most`,
    });
    mock.configure({ cublasMajor: 12 });
    expect(openCublas({ surroundings, names: [path], driverVersion: 12_040 }).cublas?.version).toBe("12.0");
    mock.reset();
  });

  test("failures of the library are told, and the device works on", () =>
    withBlas({ mayReport: true }, async ({ device, queue, mock }) => {
      const options = { inner: 2, outputs: 2, type: "F32" } as const;
      mock.setFaults([{ call: "cublasCreate_v2", code: 1 }]);
      const broken = expectCode("DEVICE_FAILED", () => create(device, options));
      expect(broken.message).toContain("CUBLAS_STATUS_NOT_INITIALIZED (1)");
      mock.setFaults([]);
      const product = create(device, options);
      const [x, w, y] = [8, 16, 8].map((length) => device.createBuffer(length));
      const one = call(product, [x!, w!, y!], 1);
      for (const [name, status, code] of [
        ["cublasGemmEx", 15, "UNSUPPORTED"],
        ["cublasSetStream_v2", 13, "DEVICE_FAILED"],
        ["cublasSetWorkspace_v2", 7, "DEVICE_FAILED"],
        ["cuMemAlloc_v2", 2, "OUT_OF_MEMORY"],
      ] as const) {
        mock.setFaults([{ call: name, code: status }]);
        expectCode(code, () => device.createSequence([one]));
        mock.setFaults([]);
        expect(mock.live()).toMatchObject({ graphs: 0, graphExecs: 0 });
        using sequence = device.createSequence([one]);
        await runWell(queue, (list) => list.replay(sequence));
      }
      mock.setFaults([{ call: "cublasGemmEx", code: 14 }]);
      const { error } = await queue.completion(queue.submit(new RequestList().dispatch(one)));
      expect(error?.message).toContain("CUBLAS_STATUS_INTERNAL_ERROR (14)");
      await runWell(queue, (list) => list.dispatch(one));
    }));
});
