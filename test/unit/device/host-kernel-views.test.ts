/** What kernels on the host get to see of buffers. */
import { describe, expect, test } from "bun:test";
import type { DeviceBuffer, DeviceQueue, KernelSource } from "../../../src/device/device.ts";
import { openHost } from "../../../src/device/host/device.ts";
import { RequestList } from "../../../src/device/requests.ts";

/** Keeps the views of its last dispatch. */
function keeper(): KernelSource & { seen: readonly Uint8Array[] } {
  const kernel = {
    name: "keep",
    seen: [] as readonly Uint8Array[],
    host: (buffers: readonly Uint8Array[]) => {
      kernel.seen = buffers;
      for (const bytes of buffers) if (bytes.length > 0) bytes[0]!++;
    },
  };
  return kernel;
}

async function withKeeper(
  work: (
    create: (byteLength: number) => DeviceBuffer,
    dispatch: (buffer: DeviceBuffer, offset: number) => Promise<Uint8Array>,
    queue: DeviceQueue,
  ) => Promise<void>,
): Promise<void> {
  const device = openHost();
  const queue = device.createQueue();
  const kernel = keeper();
  const pipeline = device.createPipeline(kernel);
  const dispatch = async (buffer: DeviceBuffer, offset: number) => {
    const call = { pipeline, buffers: [{ buffer, offset }], constants: new Uint8Array(0), threads: 1 };
    const { error } = await queue.completion(queue.submit(new RequestList().dispatch(call)));
    expect(error).toBeUndefined();
    return kernel.seen[0]!;
  };
  await work((byteLength) => device.createBuffer(byteLength), dispatch, queue);
  await device.close();
}

describe("a kernel's views on the host", () => {
  test("are cut from one that is kept, whatever the offset", async () => {
    await withKeeper(async (create, dispatch) => {
      const buffer = create(64);
      const [first, second] = [await dispatch(buffer, 0), await dispatch(buffer, 24)];
      expect(second.buffer).toBe(first.buffer);
      expect([first.length, second.length]).toEqual([64, 40]);
      expect(Array.from(new Uint8Array(buffer.view(0, 64)).subarray(23, 26))).toEqual([0, 1, 0]);
    });
  });

  test("let arrays of any type begin where an offset is odd, and end with their dispatch there", async () => {
    await withKeeper(async (create, dispatch) => {
      const buffer = create(64);
      const seen = await dispatch(buffer, 3);
      expect(new Uint8Array(buffer.view(3, 1))[0]).toBe(1);
      expect(seen.length).toBe(0);
      expect((await dispatch(buffer, 64)).length).toBe(0);
    });
  });

  test("are empty once the buffer is closed, and not while something uses it", async () => {
    await withKeeper(async (create, dispatch, queue) => {
      const buffer = create(64);
      const seen = await dispatch(buffer, 8);
      expect(seen.length).toBe(56);
      const other = create(64);
      const event = new RequestList().copy(buffer, 0, other, 0, 64);
      const ticket = queue.submit(event);
      buffer.close();
      await queue.quiesced(ticket);
      expect(seen.length).toBe(0);
      expect(seen.buffer.byteLength).toBe(0);
    });
  });
});
