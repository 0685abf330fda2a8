import { describe, expect, test } from "bun:test";
import { isDeclined } from "../../../src/device/device.ts";
import { openNull } from "../../../src/device/null/device.ts";
import { DEVICE_NAMES, type OpenDeviceOptions, openDevice } from "../../../src/device/open.ts";
import { RequestList } from "../../../src/device/requests.ts";

const withCode = (code: string) => expect.objectContaining({ code });

describe("openDevice", () => {
  test("host, and auto where there is no Metal, are the host device", async () => {
    for (const name of ["auto", "host"] as const) {
      if (name === "auto" && process.platform === "darwin") continue;
      const device = openDevice(name, { lanes: 3 });
      expect(device.capabilities).toMatchObject({
        name: "host",
        canMap: true,
        lanes: 3,
        unifiedMemory: true,
      });
      await device.close();
    }
  });

  test("devices that are not there, and names that are none", () => {
    expect(() => openDevice("cuda", { library: "/nowhere" })).toThrow(withCode("DEVICE_UNAVAILABLE"));
    expect(() => openDevice("metal", { library: "/nowhere" })).toThrow(withCode("DEVICE_UNAVAILABLE"));
    expect(() => openDevice("gpu")).toThrow(withCode("BAD_OPTION"));
    expect(() => openDevice("gpu")).toThrow(DEVICE_NAMES.join(", "));
  });

  test.skipIf(process.platform === "darwin")(
    "auto on Apple silicon: host without a library, but not where one is named that cannot be used",
    () => {
      const auto = (options: OpenDeviceOptions, variable: string | undefined) => () =>
        asAppleSilicon(variable, () => openDevice("auto", options));
      // Here the host device fails, for want of macOS's C library: that it was tried is what counts.
      for (const unnamed of [undefined, ""]) expect(auto({}, unnamed)).toThrow(/^host device: /);
      const unavailable = (text: string) =>
        expect.objectContaining({ code: "DEVICE_UNAVAILABLE", message: expect.stringContaining(text) });
      expect(auto({}, "/nowhere")).toThrow(unavailable("HEADRACE_METAL_LIBRARY names it"));
      expect(auto({}, import.meta.path)).toThrow(unavailable("no library of this system"));
      expect(auto({ library: "/nowhere" }, undefined)).toThrow(unavailable("option library names it"));
      expect(auto({ ordinal: -1 }, undefined)).toThrow(withCode("BAD_OPTION"));
    },
  );

  test.each([
    [{ lanes: 0 }],
    [{ lanes: 65 }],
    [{ lanes: 1.5 }],
    [{ pieceBytes: 100 }],
    [{ pieceBytes: 2 ** 31 }],
    [{ inlineCopyBytes: -1 }],
    [{ ringEntries: 100 }],
    [{ ringEntries: 8 }],
    [{ faults: [{ call: "pread" as const, nth: 0 }] }],
  ])("%o is refused", (options) => {
    expect(() => openDevice("host", options)).toThrow(withCode("BAD_OPTION"));
  });
});

/** Runs `work` as if this were a Mac, with the variable that names the library of `metal`. */
function asAppleSilicon<T>(library: string | undefined, work: () => T): T {
  const { platform, arch } = process;
  const before = process.env.HEADRACE_METAL_LIBRARY;
  const become = (platform: string, arch: string, variable: string | undefined) => {
    Object.defineProperty(process, "platform", { value: platform });
    Object.defineProperty(process, "arch", { value: arch });
    if (variable === undefined) delete process.env.HEADRACE_METAL_LIBRARY;
    else process.env.HEADRACE_METAL_LIBRARY = variable;
  };
  become("darwin", "arm64", library);
  try {
    return work();
  } finally {
    become(platform, arch, before);
  }
}

describe("null device", () => {
  test("records what it was asked for, as data, and moves nothing", async () => {
    const device = openNull();
    const queue = device.createQueue();
    const file = device.openFile(import.meta.path);
    const buffer = device.createBuffer(file.byteLength);
    const event = device.createEvent();
    const pipeline = device.createPipeline({ name: "text only", text: "…" });
    const call = { pipeline, buffers: [], constants: new Uint8Array(0), threads: 3 };
    const list = new RequestList()
      .read(file, 5, buffer, 7, 10)
      .copy(buffer, 0, buffer, 100, 20)
      .barrier()
      .dispatch(call)
      .sync(file)
      .signal(event, 4)
      .wait(event, 4);
    const ticket = queue.submit(list);
    list.clear();
    const completion = await queue.completion(ticket);
    expect(completion.error).toBeUndefined();
    expect(completion.bytesDone).toBe(30);
    expect(event.value).toBe(4);
    expect(new Uint8Array(buffer.view(0, 50)).every((byte) => byte === 0)).toBe(true);
    expect(device.recorded).toEqual([
      {
        queue,
        ticket,
        requests: [
          { op: "read", source: file, sourceOffset: 5, target: buffer, targetOffset: 7, byteLength: 10 },
          { op: "copy", source: buffer, sourceOffset: 0, target: buffer, targetOffset: 100, byteLength: 20 },
          { op: "barrier" },
          { op: "dispatch", source: call },
          { op: "sync", source: file },
          { op: "signal", source: event, value: 4 },
          { op: "wait", source: event, value: 4 },
        ],
      },
    ]);
    await device.close();
  });

  test("records nothing that was refused", async () => {
    const device = openNull();
    const buffer = device.createBuffer(10);
    const list = new RequestList().copy(buffer, 0, buffer, 5, 50);
    expect(() => device.createQueue().submit(list)).toThrow(withCode("OUT_OF_RANGE"));
    expect(device.recorded).toEqual([]);
    await device.close();
  });

  test("declines to map when told so", async () => {
    const device = openNull({ canMap: false });
    expect(device.capabilities.canMap).toBe(false);
    const file = device.openFile(import.meta.path);
    expect(isDeclined(device.map(file, 0, 10))).toBe(true);
    await device.close();
  });
});
