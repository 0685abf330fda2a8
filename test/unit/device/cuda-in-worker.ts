/** A Worker with a CUDA device of its own: it brings bytes to device memory and back, and posts whether they are right. */
import { openCuda } from "../../../src/device/cuda/device.ts";
import { RequestList } from "../../../src/device/requests.ts";

declare const self: Worker;

self.onmessage = async ({
  data: { library, ordinal },
}: MessageEvent<{ library: string; ordinal: number }>) => {
  const byteLength = 50_000;
  const device = openCuda({ library, nvrtc: library, ordinal, lanes: 1 });
  const queue = device.createQueue();
  const [from, to] = [device.createBuffer(byteLength), device.createBuffer(byteLength)];
  const hidden = device.createBuffer(byteLength, "private");
  const bytes = new Uint8Array(from.view(0, byteLength));
  for (let i = 0; i < byteLength; i++) bytes[i] = i * 7;
  const list = new RequestList()
    .copy(from, 0, hidden, 0, byteLength)
    .barrier()
    .copy(hidden, 0, to, 0, byteLength);
  const { error } = await queue.completion(queue.submit(list));
  const right = Buffer.compare(bytes, new Uint8Array(to.view(0, byteLength))) === 0;
  await device.close();
  self.postMessage(error?.message ?? (right ? "right" : "wrong"));
};
