/** A process that works with a CUDA device and never closes it. Arguments: the driver's library, a file, and whether to
 * wait for the end. Prints how the tickets ended that it saw end. */
import { openCuda } from "../../../src/device/cuda/device.ts";
import { isDeclined } from "../../../src/device/device.ts";
import { RequestList } from "../../../src/device/requests.ts";

const [library = "", path = "", mode = "wait"] = process.argv.slice(2);
const device = openCuda({ library, nvrtc: library, lanes: 2 });
const queue = device.createQueue();
const file = device.openFile(path);
const mapped = device.map(file, 0, file.byteLength);
if (isDeclined(mapped)) throw new Error(mapped.declined);
const hidden = device.createBuffer(2 * file.byteLength, "private");
const list = new RequestList()
  .read(file, 0, hidden, 0, file.byteLength)
  .copy(mapped, 0, hidden, file.byteLength, file.byteLength);
const ended = queue.completion(queue.submit(list));
const told = ended.then(({ error }) => console.log(error?.message ?? "well"));
if (mode === "wait") await told;
if (mode === "exit") process.exit(0);
