/** Launches that would lose the context are refused before anything runs. */
import { expect, test } from "bun:test";
import type { KernelSource } from "../../../src/device/device.ts";
import { type DispatchCall, RequestList } from "../../../src/device/requests.ts";
import { expectCode, runWell } from "../../conformance/harness.ts";
import { describeOverMock, KIB, withCuda } from "./cuda-rig.ts";

const DOUBLE: KernelSource = {
  name: "twice",
  text: `
struct Twice { uint32_t count; };
HR_KERNEL(twice, HR_IN(0, uint32_t, from), HR_OUT(1, uint32_t, to), HR_CONSTANTS(2, Twice, c)) {
  if (hr_thread < c.count) to[hr_thread] = 2u * from[hr_thread];
}
HR_KERNEL(plain, HR_OUT(0, uint8_t, bytes)) { if (hr_thread < hr_threads) bytes[hr_thread] = 7; }
`,
};
const COUNT = new Uint8Array(new Uint32Array([4]).buffer);

describeOverMock("launches of the CUDA device", () => {
  test("with other arguments than the kernel's are refused, and the device works on", () =>
    withCuda({}, async ({ device, queue, file, map, bytes }) => {
      const twice = device.createPipeline(DOUBLE);
      const plain = device.createPipeline({ ...DOUBLE, name: "plain" });
      const from = device.createBuffer(KIB);
      const to = device.createBuffer(KIB, "private");
      const mapping = map(file("a.bin", 4 * KIB));
      const at = (buffer: typeof from, offset = 0) => ({ buffer, offset });
      const call: DispatchCall = {
        pipeline: twice,
        buffers: [at(from), at(to)],
        constants: COUNT,
        threads: 4,
      };
      const refused = (change: Partial<DispatchCall>, text: RegExp) => {
        const wrong = { ...call, ...change };
        const error = expectCode("BAD_OPTION", () => queue.submit(new RequestList().dispatch(wrong)));
        expect(error.message).toMatch(text);
        expectCode("BAD_OPTION", () => device.createSequence([wrong]));
      };
      refused({ buffers: [at(from)] }, /twice: 1 buffers were given, and the kernel takes 2/);
      refused({ buffers: [at(from), at(to), at(to)] }, /3 buffers were given/);
      refused({ constants: new Uint8Array(0) }, /0 bytes of constants were given, and the kernel takes some/);
      refused(
        { pipeline: plain, buffers: [at(to)] },
        /4 bytes of constants were given, and the kernel takes none/,
      );
      refused({ buffers: [at(from, 2), at(to)] }, /buffer 0 holds uint32_t, .* multiple of 4 .* offset is 2/);
      refused({ buffers: [at(from), at(mapping)] }, /buffer 1 is written to, and the mapping of .*a\.bin/);
      refused({ constants: undefined as unknown as Uint8Array }, /constants are no Uint8Array/);

      new Uint32Array(from.view(0, 16)).set([1, 2, 3, 4]);
      await runWell(queue, (list) => list.dispatch(call));
      expect(new Uint32Array((await bytes(to)).slice(0, 16).buffer)).toEqual(new Uint32Array([2, 4, 6, 8]));
    }));

  test("a replay's offsets are held to the same", () =>
    withCuda({}, async ({ device, queue }) => {
      const pipeline = device.createPipeline(DOUBLE);
      const buffers = [
        { buffer: device.createBuffer(KIB), offset: 0, slot: 0 },
        { buffer: device.createBuffer(KIB), offset: 0 },
      ];
      const sequence = device.createSequence([{ pipeline, buffers, constants: COUNT, threads: 4 }]);
      const replay = (offset: number) => new RequestList().replay(sequence, [{ slot: 0, offset }]);
      expectCode("BAD_OPTION", () => queue.submit(replay(6)));
      await runWell(queue, (list) => list.replay(sequence, [{ slot: 0, offset: 8 }]));
    }));

  test("what loses the context names the kernels of its ticket", () =>
    withCuda({ config: { contextAfterLoss: true }, mayReport: true }, async ({ device, queue }) => {
      const name = "astray";
      const text = `HR_KERNEL(astray, HR_OUT(0, uint32_t, to)) { to[hr_thread + (1u << 28)] = 1u; }`;
      const pipeline = device.createPipeline({ name, text });
      const buffers = [{ buffer: device.createBuffer(KIB, "private"), offset: 0 }];
      const list = new RequestList().dispatch({
        pipeline,
        buffers,
        constants: new Uint8Array(0),
        threads: 1,
      });
      const { error } = await queue.completion(queue.submit(list));
      expect(error?.code).toBe("DEVICE_LOST");
      expect(error?.message).toMatch(/; kernels of this ticket: astray$/);
    }));
});
