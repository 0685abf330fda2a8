/** A Worker with a Metal device of its own, that works and closes in flight until it has done its rounds. */
import { openDevice, RequestList } from "../../src/index.ts";

declare const self: Worker;

self.onmessage = async ({ data }: MessageEvent<{ path: string; rounds: number }>) => {
  const { path, rounds } = data;
  let ended = 0;
  for (let round = 0; round < rounds; round++) {
    const device = openDevice("metal", { lanes: 2, pieceBytes: 8192 });
    const queues = Array.from({ length: 4 }, () => device.createQueue());
    const file = device.openFile(path);
    const buffer = device.createBuffer(file.byteLength);
    const list = new RequestList().read(file, 0, buffer, 0, file.byteLength);
    const checks = Array.from({ length: 40 }, async (_, i) => {
      const queue = queues[i % queues.length]!;
      const { error } = await queue.completion(queue.submit(list));
      if (error !== undefined && error.code !== "CANCELLED") throw error;
      ended++;
    });
    if (round % 3 === 0) await Promise.all(checks);
    if (round % 3 === 1) await queues[1]!.close();
    await device.close();
    await Promise.all(checks);
  }
  self.postMessage(ended);
};
