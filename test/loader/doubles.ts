/** Devices that are the host but for one thing, so that the loader meets what no machine of the tests has. */
import type { Completion, Device, DeviceFile, DeviceQueue, RequestList, Stages } from "../../src/index.ts";

/** What a double does otherwise than the host. */
export interface Differences {
  readonly capabilities?: Partial<Device["capabilities"]>;
  /** What of every file is in memory; undefined: not known. */
  readonly residentPart?: (path: string) => number | undefined;
  readonly map?: Device["map"];
  /** Makes every ticket tell of its life. */
  readonly stages?: (completion: Completion) => Stages;
}

/** A host that differs, and what went through it. */
export interface Double {
  readonly device: Device;
  /** Files opened as streams and not closed. */
  readonly streams: ReadonlySet<DeviceFile>;
  /** Read requests, by the mode of their file. */
  readonly reads: { plain: number; stream: number };
}

/** Borrows `host`. With `canStream`, a stream is a plain file that is told apart. */
export function double(host: Device, differences: Differences): Double {
  const streams = new Set<DeviceFile>();
  const reads = { plain: 0, stream: 0 };
  const device: Device = {
    capabilities: { ...host.capabilities, ...differences.capabilities },
    facts: host.facts,
    openFile: (path, mode) => openFile(host, path, mode, streams, differences),
    map: differences.map ?? ((file, byteOffset, byteLength) => host.map(file, byteOffset, byteLength)),
    createBuffer: (byteLength, storage) => host.createBuffer(byteLength, storage),
    createEvent: () => host.createEvent(),
    createQueue: () => counting(host.createQueue(), streams, reads, differences),
    createPipeline: (source) => host.createPipeline(source),
    createSequence: (calls) => host.createSequence(calls),
    decoders: host.decoders,
    get openResources() {
      return host.openResources;
    },
    close: () => host.close(),
    [Symbol.dispose]: () => host[Symbol.dispose](),
  };
  return { device, streams, reads };
}

function openFile(
  host: Device,
  path: string,
  mode: Parameters<Device["openFile"]>[1],
  streams: Set<DeviceFile>,
  { residentPart, capabilities }: Differences,
): DeviceFile {
  const streamed = mode === "stream" && capabilities?.canStream === true;
  const file = host.openFile(path, streamed ? "read" : mode);
  if (residentPart !== undefined) file.residentPart = () => residentPart(path);
  if (streamed) {
    streams.add(file);
    const close = file.close.bind(file);
    file.close = () => {
      streams.delete(file);
      close();
    };
  }
  return file;
}

function counting(
  queue: DeviceQueue,
  streams: ReadonlySet<DeviceFile>,
  reads: Double["reads"],
  { stages }: Differences,
): DeviceQueue {
  const submit = queue.submit.bind(queue);
  queue.submit = (list: RequestList, options) => {
    const { numbers, objects } = list;
    for (let at = 0; at < list.length * 6; at += 6) {
      if (numbers[at] !== 1) continue;
      if (streams.has(objects[numbers[at + 1]!] as DeviceFile)) reads.stream++;
      else reads.plain++;
    }
    return submit(list, options);
  };
  if (stages === undefined) return queue;
  const completion = queue.completion.bind(queue);
  queue.completion = async (ticket) => {
    const done = await completion(ticket);
    return { ...done, stages: stages(done) };
  };
  return queue;
}
