/** Captures and graphs in the mock of CUDA. */
import { beforeEach, describe, expect, test } from "bun:test";
import { addressOf, made } from "../../cuda-mock/symbols.ts";
import { noMock, PAGE, pointers, reason, u64, useMock } from "./rig.ts";

const [GLOBAL, THREAD_LOCAL, RELAXED] = [0, 1, 2];
const TEXT = `
extern "C" __global__ void twice(unsigned *at) { at[threadIdx.x] *= 2u; }
extern "C" __global__ void next(unsigned *at) { at[threadIdx.x] += 1u; }
`;

describe.skipIf(noMock)(`graphs in the mock of CUDA${reason}`, () => {
  const rig = useMock();
  let context = 0;
  let stream = 0;
  beforeEach(() => {
    context = rig.context();
    stream = rig.stream();
  });
  const begin = (mode = RELAXED, of = stream) => rig.cuda.cuStreamBeginCapture_v2(of, mode);
  const end = (of = stream) => {
    const out = new BigUint64Array([7n]);
    return { code: rig.cuda.cuStreamEndCapture(of, out), graph: Number(out[0]) };
  };
  const launch = (kernel: number, at: number) =>
    rig.cuda.cuLaunchKernel(kernel, 1, 1, 1, 4, 1, 1, 0, stream, pointers([argument(at)]), null);
  // Kept, as its address is passed on.
  let kept: Uint8Array[] = [];
  const argument = (at: number) => {
    const bytes = u64(at);
    kept.push(bytes);
    return addressOf(bytes);
  };
  beforeEach(() => {
    kept = [];
  });

  test("keep what is captured, and run it in order, as often as they are launched", () => {
    const module = rig.load(TEXT);
    const [twice, next] = [rig.kernel(module, "twice"), rig.kernel(module, "next")];
    const at = rig.upload(new Uint8Array(new Uint32Array([1, 2, 3, 4]).buffer));
    expect(begin()).toBe(0);
    expect(launch(twice, at)).toBe(0);
    expect(launch(next, at)).toBe(0);
    expect(launch(twice, at)).toBe(0);
    const { code, graph } = end();
    expect(code).toBe(0);
    const exec = made((out) => rig.cuda.cuGraphInstantiateWithFlags(out, graph, 0));
    expect(rig.cuda.cuGraphDestroy(graph)).toBe(0);
    const values = () => [...new Uint32Array(rig.download(at, 16).buffer)];
    expect(values()).toEqual([1, 2, 3, 4]);
    for (let round = 0; round < 2; round++) expect(rig.cuda.cuGraphLaunch(exec, stream)).toBe(0);
    expect(rig.cuda.cuStreamSynchronize(stream)).toBe(0);
    expect(values()).toEqual([1, 2, 3, 4].map((value) => (value * 4 + 2) * 4 + 2));
    expect(rig.mock.live()).toMatchObject({ graphs: 0, graphExecs: 1 });
    expect(rig.cuda.cuGraphExecDestroy(exec)).toBe(0);
    expect(rig.cuda.cuGraphExecDestroy(exec)).toBe(1);
    expect(rig.cuda.cuGraphLaunch(exec, stream)).toBe(1);
  });

  test("launches of one executable graph never overlap, whatever their streams", () => {
    rig.mock.configure({ maxDelayUs: 500 });
    const next = rig.kernel(rig.load(TEXT), "next");
    const at = rig.upload(new Uint8Array(16));
    expect(begin()).toBe(0);
    for (let i = 0; i < 5; i++) launch(next, at);
    const exec = made((out) => rig.cuda.cuGraphInstantiateWithFlags(out, end().graph, 0));
    const streams = [stream, rig.stream(), rig.stream()];
    for (let i = 0; i < 30; i++) rig.cuda.cuGraphLaunch(exec, streams[i % 3]!);
    expect(rig.cuda.cuCtxSynchronize()).toBe(0);
    expect(new Uint32Array(rig.download(at, 16).buffer)[0]).toBe(150);
  });

  test("a capture is begun once, ended once, and by its thread", () => {
    expect(begin(3)).toBe(1);
    expect(begin(RELAXED, 0)).toBe(900);
    expect(end().code).toBe(401);
    expect(begin()).toBe(0);
    expect(begin()).toBe(401);
    expect(rig.cuda.cuStreamBeginCapture_v2(12345, RELAXED)).toBe(400);
    expect(end().code).toBe(0);
    expect(end()).toEqual({ code: 401, graph: 0 });
  });

  test("what cannot be captured spoils it", () => {
    const event = rig.event();
    const pageable = rig.host(PAGE);
    const at = rig.allocate(PAGE);
    const calls = [
      () => rig.cuda.cuStreamSynchronize(stream),
      () => rig.cuda.cuStreamQuery(stream),
      () => rig.cuda.cuEventRecord(event, stream),
      () => rig.cuda.cuMemcpyAsync(at, pageable.address, PAGE, stream),
      () => rig.cuda.cuCtxSynchronize(),
    ];
    for (const call of calls) {
      expect(begin()).toBe(0);
      expect(call()).toBe(900);
      expect(rig.cuda.cuMemsetD8Async(at, 1, PAGE, stream)).toBe(901);
      expect(end()).toEqual({ code: 901, graph: 0 });
    }
    expect(rig.mock.reports().length).toBe(calls.length);
    // Not with the stream itself, and so of no matter.
    expect(begin()).toBe(0);
    expect(rig.cuda.cuStreamSynchronize(rig.stream())).toBe(0);
    expect(end().code).toBe(0);
  });

  test("modes forbid calls that may wait for the device", () => {
    for (const [mode, code] of [
      [GLOBAL, 900],
      [THREAD_LOCAL, 900],
      [RELAXED, 0],
    ] as const) {
      expect(begin(mode)).toBe(0);
      expect(rig.cuda.cuMemAlloc_v2(new BigUint64Array(1), PAGE)).toBe(code);
      expect(end().code).toBe(code === 0 ? 0 : 901);
    }
  });

  test("the stream without handle is not to be used beside a capture of a blocking one", () => {
    const blocking = rig.stream(0);
    const at = rig.allocate(PAGE);
    expect(begin(RELAXED, blocking)).toBe(0);
    expect(rig.cuda.cuMemsetD8Async(at, 1, PAGE, 0)).toBe(906);
    expect(end(blocking).code).toBe(901);
  });

  test("a kernel whose module is gone loses the context when its graph runs", () => {
    const module = rig.load(TEXT);
    const next = rig.kernel(module, "next");
    const at = rig.allocate(16);
    begin();
    launch(next, at);
    const exec = made((out) => rig.cuda.cuGraphInstantiateWithFlags(out, end().graph, 0));
    expect(rig.cuda.cuModuleUnload(module)).toBe(0);
    expect(rig.cuda.cuGraphLaunch(exec, stream)).toBe(0);
    expect(rig.cuda.cuStreamSynchronize(stream)).toBe(700);
    expect(rig.mock.reports()[0]).toContain("next ran when its module was unloaded");
  });

  test("what a context leaves is counted", () => {
    begin();
    const { graph } = end();
    made((out) => rig.cuda.cuGraphInstantiateWithFlags(out, graph, 0));
    begin();
    expect(rig.cuda.cuCtxDestroy_v2(context)).toBe(0);
    expect(rig.mock.live()).toMatchObject({ graphs: 0, graphExecs: 0, streams: 0 });
    expect(rig.mock.live().abandoned).toBe(3);
    expect(rig.mock.reports()[0]).toBe("a stream was destroyed while it captured");
  });
});
