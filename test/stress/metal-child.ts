/** A process of its own that ends in some way with a Metal device open: `bun metal-child.ts WAY COMPLETIONS PATH`. */
import { openDevice, RequestList } from "../../src/index.ts";
import { metalLibrary, openStandIn } from "../conformance/metal-subjects.ts";

const [way, completions, path] = process.argv.slice(2) as [string, "wake" | "worker" | "auto", string];
const device = openDevice("metal", { completions, pieceBytes: 4096, lanes: 2 });
const queue = device.createQueue();
const file = device.openFile(path);
const buffer = device.createBuffer(file.byteLength);
const read = () => queue.submit(new RequestList().read(file, 0, buffer, 0, file.byteLength));

const library = metalLibrary();
if ("missing" in library) throw new Error(library.missing);
const hang = (delayMs: number) =>
  openStandIn(library.path)?.setFaults([{ call: "pread", nth: 1, times: 10_000, delayMs }]);

switch (way) {
  // Nothing in flight: an open device alone does not keep a process.
  case "idle":
    await queue.completion(read());
    break;
  case "event": {
    const event = device.createEvent();
    void event.reached(1);
    break;
  }
  // Work in flight does, until it has ended.
  case "ends": {
    hang(2);
    const ticket = read();
    void queue.completion(ticket).then(({ error, bytesDone }) => console.log(error?.code ?? bytesDone));
    break;
  }
  case "exit":
    hang(20);
    for (let i = 0; i < 50; i++) read();
    await Bun.sleep(5);
    process.exit(0);
    break;
  case "closing":
    hang(20);
    for (let i = 0; i < 50; i++) read();
    void device.close();
    process.exit(0);
    break;
  case "throws":
    hang(20);
    for (let i = 0; i < 50; i++) read();
    throw new Error("on purpose");
  default:
    throw new Error(`unknown way ${way}`);
}
