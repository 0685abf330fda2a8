/** Matrix products by the vendor's library, on every device that offers them: right, in order with what is around them,
 * replayed, and refused where they do not fit. */
import { expect, test } from "bun:test";
import type { Device, DeviceBuffer, DeviceQueue, MatmulOptions, Pipeline } from "../../src/device/device.ts";
import type { DispatchCall } from "../../src/device/requests.ts";
import { elementsOf, valuesOf } from "../unit/kernels/forms.ts";
import {
  bytesOf,
  expectBytes,
  expectCode,
  listOf,
  runWell,
  type Subject,
  testWhere,
  useRig,
} from "./harness.ts";
import { ADD, addConstants } from "./kernels.ts";

type Type = MatmulOptions["type"];

/** Small integers, whose sums no type rounds. */
function numbers(count: number, seed: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: count }, (_, i) => (((i + seed) * 7919) % 9) - 4);
}

/** What a product leaves in y, whose rows stand `stride` apart. */
function product(x: Float32Array, w: Float32Array, y: Float32Array, shape: Shape): Float32Array {
  const { rows, inner, outputs, stride, accumulate } = shape;
  const out = y.slice();
  for (let row = 0; row < rows; row++) {
    for (let output = 0; output < outputs; output++) {
      let sum = accumulate ? y[row * stride + output]! : 0;
      for (let i = 0; i < inner; i++) sum += x[row * inner + i]! * w[output * inner + i]!;
      out[row * stride + output] = sum;
    }
  }
  return out;
}

interface Shape {
  readonly rows: number;
  readonly inner: number;
  readonly outputs: number;
  readonly stride: number;
  readonly type: Type;
  readonly outputType: Type;
  readonly accumulate: boolean;
}

const SHAPES: readonly Shape[] = [
  { rows: 1, inner: 8, outputs: 3, stride: 3, type: "F32", outputType: "F32", accumulate: false },
  { rows: 7, inner: 33, outputs: 10, stride: 16, type: "F16", outputType: "F32", accumulate: true },
  { rows: 20, inner: 5, outputs: 1, stride: 2, type: "F16", outputType: "F16", accumulate: false },
  { rows: 5, inner: 12, outputs: 9, stride: 9, type: "F32", outputType: "F32", accumulate: true },
];

export function vendorCases(subject: Subject): void {
  let device: Device;
  let queue: DeviceQueue;
  useRig(subject, (rig) => {
    ({ device, queue } = rig);
  });

  function filled(elements: Float32Array | Uint16Array): DeviceBuffer {
    const buffer = device.createBuffer(elements.byteLength);
    const bytes = new Uint8Array(elements.buffer, elements.byteOffset, elements.byteLength);
    new Uint8Array(buffer.view(0, bytes.length)).set(bytes);
    return buffer;
  }
  function create(options: MatmulOptions): Pipeline {
    if (device.createMatmul === undefined) throw new Error("the device has no products");
    return device.createMatmul(options);
  }
  function callOf(pipeline: Pipeline, buffers: readonly DeviceBuffer[], rows: number): DispatchCall {
    const bindings = buffers.map((buffer) => ({ buffer, offset: 0 }));
    return { pipeline, buffers: bindings, constants: new Uint8Array(0), threads: rows };
  }

  test.each(SHAPES)("$type, $rows rows, into $outputType", async (shape) => {
    const { rows, inner, outputs, stride, type, outputType, accumulate } = shape;
    const [x, w, y] = [numbers(rows * inner, 1), numbers(outputs * inner, 2), numbers(rows * stride, 3)];
    const buffers = [
      filled(elementsOf(type, x)),
      filled(elementsOf(type, w)),
      filled(elementsOf(outputType, y)),
    ];
    using pipeline = create({ inner, outputs, type, outputType, outputStride: stride, accumulate });
    await runWell(queue, (list) => list.dispatch(callOf(pipeline, buffers, rows)));
    const bytes = bytesOf(buffers[2]!);
    const elements = outputType === "F32" ? new Float32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
    expect(valuesOf(outputType, elements)).toEqual(product(x, w, y, shape));
    for (const buffer of buffers) buffer.close();
  });

  test("in sequences, between kernels and copies, and with other offsets", async () => {
    const shape = { ...SHAPES[0]!, rows: 2, accumulate: true };
    const { rows, inner, outputs } = shape;
    const [x, w] = [numbers(2 * rows * inner, 4), numbers(outputs * inner, 5)];
    const inputs = filled(x);
    const weights = filled(w);
    const target = filled(new Float32Array(rows * outputs));
    const copied = device.createBuffer(rows * outputs * 4);
    using pipeline = create({ inner, outputs, type: "F32", accumulate: true });
    const call: DispatchCall = {
      pipeline,
      buffers: [
        { buffer: inputs, offset: 0, slot: 1 },
        { buffer: weights, offset: 0 },
        { buffer: target, offset: 0 },
      ],
      constants: new Uint8Array(0),
      threads: rows,
    };
    using sequence = device.createSequence([call, call]);
    await runWell(queue, (list) =>
      list
        .replay(sequence)
        .replay(sequence, [{ slot: 1, offset: rows * inner * 4 }])
        .copy(target, 0, copied, 0, copied.byteLength),
    );
    let expected = new Float32Array(rows * outputs);
    for (const part of [x.subarray(0, rows * inner), x.subarray(rows * inner)]) {
      for (let i = 0; i < 2; i++) expected = new Float32Array(product(part, w, expected, shape));
    }
    expectBytes(bytesOf(copied), new Uint8Array(expected.buffer));
    expectCode("OUT_OF_RANGE", () =>
      queue.submit(listOf((list) => list.replay(sequence, [{ slot: 1, offset: inputs.byteLength }]))),
    );
    for (const buffer of [inputs, weights, target, copied]) buffer.close();
  });

  const kernelTest = testWhere(subject.runsKernels !== false, `${subject.name} compiles no kernels`);
  kernelTest("kernels before a product are seen by it, and it is seen by those behind", async () => {
    const bytes = (values: number[]) => filled(Float32Array.from(values));
    const [x, w, y] = [bytes([0, 0]), bytes([1, 2]), bytes([0])] as const;
    using add = device.createPipeline(ADD);
    using pipeline = create({ inner: 2, outputs: 1, type: "F32" });
    // 0 as a float, with 64 in its last byte, is 2.
    const raise = (buffer: DeviceBuffer, offset: number): DispatchCall => ({
      pipeline: add,
      buffers: [{ buffer, offset }],
      constants: addConstants(64),
      threads: 1,
    });
    using ended = device.createBuffer(4);
    await runWell(queue, (list) =>
      list
        .dispatch(raise(x, 3))
        .dispatch(callOf(pipeline, [x, w, y], 1))
        .dispatch(raise(y, 2))
        .copy(y, 0, ended, 0, 4),
    );
    // 2 is 0x40000000, and 0x40400000 is 3.
    expect(new Float32Array(ended.view(0, 4))[0]).toBe(3);
    for (const buffer of [x, w, y]) buffer.close();
  });

  test("what does not fit is refused, and no rows are nothing to do", async () => {
    const options = { inner: 4, outputs: 6, type: "F16" } as const;
    expectCode("BAD_OPTION", () => create({ ...options, inner: 0 }));
    expectCode("BAD_OPTION", () => create({ ...options, outputStride: 5 }));
    expectCode("BAD_OPTION", () => create({ ...options, outputType: "BF16" }));
    expectCode("BAD_OPTION", () => create({ ...options, type: "I8" as Type }));
    using pipeline = create(options);
    const buffers = [3 * 4 * 2, 6 * 4 * 2, 3 * 6 * 4].map((length) => device.createBuffer(length));
    const submit = (call: DispatchCall) => queue.submit(listOf((list) => list.dispatch(call)));
    const good = callOf(pipeline, buffers, 3);
    expectCode("OUT_OF_RANGE", () => submit({ ...good, threads: 4 }));
    expectCode("BAD_OPTION", () => submit({ ...good, buffers: good.buffers.slice(1) }));
    expectCode("BAD_OPTION", () => submit({ ...good, constants: new Uint8Array(4) }));
    expectCode("BAD_OPTION", () => device.createSequence([{ ...good, constants: new Uint8Array(4) }]));
    const none = { ...good, threads: 0 };
    using sequence = device.createSequence([none, good]);
    await runWell(queue, (list) => list.dispatch(none).replay(sequence));
    for (const buffer of buffers) buffer.close();
  });
}
