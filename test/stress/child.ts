/**
 * A process of its own that ends in some way with a device open: `bun child.ts WAY PATH DEVICE [MORE]`, where MORE is
 * how `metal` learns of completions, and the library of `cuda`.
 */
import { type Device, openDevice, RequestList } from "../../src/index.ts";
import { metalLibrary, openStandIn } from "../conformance/metal-subjects.ts";
import { openCudaMock } from "../cuda-mock/mock.ts";

const [way, path, name, more] = process.argv.slice(2) as [string, string, string, string];
/** How long a read takes, ms. */
const DELAYS: Readonly<Record<string, number>> = { ends: 2, exit: 20, closing: 20, throws: 20 };

function open(delayMs: number | undefined): Device {
  const tiny = { pieceBytes: 4096, lanes: 2 };
  if (name === "metal") {
    const device = openDevice("metal", { completions: more as "wake" | "worker" | "auto", ...tiny });
    const library = metalLibrary();
    if ("missing" in library) throw new Error(library.missing);
    if (delayMs !== undefined) {
      openStandIn(library.path)?.setFaults([{ call: "pread", nth: 1, times: 10_000, delayMs }]);
    }
    return device;
  }
  const faults = delayMs === undefined ? [] : [{ call: "pread" as const, nth: 1, times: 10_000, delayMs }];
  if (name !== "cuda") return openDevice(name, { ...tiny, faults });
  // What is on the GPU takes its time too, so that Workers wait for it.
  openCudaMock(more).configure({ maxDelayUs: 1000 * (delayMs ?? 0) });
  return openDevice("cuda", { library: more, nvrtc: more, ...tiny, faults });
}

const device = open(DELAYS[way]);
const queue = device.createQueue();
const file = device.openFile(path);
const buffer = device.createBuffer(file.byteLength);
const apart = device.createBuffer(file.byteLength, "private");
const read = () => queue.submit(new RequestList().read(file, 0, buffer, 0, file.byteLength));
const upload = () => queue.submit(new RequestList().copy(buffer, 0, apart, 0, file.byteLength));

switch (way) {
  // Nothing in flight: an open device alone does not keep a process.
  case "idle":
    await queue.completion(read());
    await queue.completion(upload());
    break;
  case "event": {
    const event = device.createEvent();
    void event.reached(1);
    break;
  }
  // Work in flight does, until it has ended.
  case "ends":
    void queue.completion(read()).then(({ error, bytesDone }) => console.log(error?.code ?? bytesDone));
    break;
  case "exit":
    for (let i = 0; i < 50; i++) (i % 2 === 0 ? read : upload)();
    await Bun.sleep(5);
    process.exit(0);
    break;
  case "closing":
    for (let i = 0; i < 50; i++) (i % 2 === 0 ? read : upload)();
    void device.close();
    process.exit(0);
    break;
  case "throws":
    for (let i = 0; i < 50; i++) (i % 2 === 0 ? read : upload)();
    throw new Error("on purpose");
  default:
    throw new Error(`unknown way ${way}`);
}
