/** A device with memory of its own: the host device, but for saying so, and for telling what went over the link. */

import { FIELDS, Op } from "../../src/device/requests.ts";
import type { Device, DeviceBuffer, DeviceQueue, RequestList } from "../../src/index.ts";

/** A copy from memory that the host wrote. */
export interface Upload {
  readonly from: number;
  readonly to: number;
  readonly byteLength: number;
}

/** What a {@link discrete} device was asked to do. Bytes, unless the name says otherwise. */
export interface Traffic {
  readonly uploads: Upload[];
  /** From mappings to private memory. */
  mapped: number;
  /** From files to private memory. */
  read: number;
  /** From files to shared memory, and from there on to private memory. */
  staged: number;
  onward: number;
  /** Copies that bring {@link Traffic.onward}. */
  onwardCopies: number;
  barriers: number;
  /** Submissions. */
  submissions: number;
  /** Buffers that are open now, and the most of the shared ones at any time. */
  sharedBytes: number;
  privateBytes: number;
  mostShared: number;
  /** Times that the host tried to see private memory. */
  peeks: number;
}

export interface Discrete {
  readonly device: Device;
  readonly traffic: Traffic;
}

/** Borrows `host`. `maxMapLength` bounds its mappings, as a device does that pins them. */
export function discrete(
  host: Device,
  capabilities: { readonly maxMapLength?: number; readonly canMap?: boolean } = {},
): Discrete {
  const traffic: Traffic = {
    uploads: [],
    mapped: 0,
    read: 0,
    staged: 0,
    onward: 0,
    onwardCopies: 0,
    barriers: 0,
    submissions: 0,
    sharedBytes: 0,
    privateBytes: 0,
    mostShared: 0,
    peeks: 0,
  };
  const device: Device = {
    capabilities: { ...host.capabilities, name: "discrete", ...capabilities, unifiedMemory: false },
    openFile: (path, mode) => host.openFile(path, mode),
    map: (file, byteOffset, byteLength) => {
      if (byteLength > device.capabilities.maxMapLength) throw new Error(`${byteLength} bytes are too many`);
      return host.map(file, byteOffset, byteLength);
    },
    createBuffer: (byteLength, storage) => counted(host.createBuffer(byteLength, storage), traffic),
    createEvent: () => host.createEvent(),
    createQueue: () => recorded(host.createQueue(), traffic),
    createPipeline: (source) => host.createPipeline(source),
    createSequence: (calls) => host.createSequence(calls),
    decoders: host.decoders,
    facts: host.facts,
    get openResources() {
      return host.openResources;
    },
    close: () => host.close(),
    [Symbol.dispose]: () => host[Symbol.dispose](),
  };
  return { device, traffic };
}

function counted(buffer: DeviceBuffer, traffic: Traffic): DeviceBuffer {
  const { byteLength, storage } = buffer;
  const key = storage === "shared" ? "sharedBytes" : "privateBytes";
  traffic[key] += byteLength;
  traffic.mostShared = Math.max(traffic.mostShared, traffic.sharedBytes);
  const close = buffer.close.bind(buffer);
  buffer.close = () => {
    if (!buffer.closed) traffic[key] -= byteLength;
    close();
  };
  if (storage === "private") {
    const view = buffer.view.bind(buffer);
    buffer.view = (...range) => {
      traffic.peeks++;
      return view(...range);
    };
  }
  return buffer;
}

function recorded(queue: DeviceQueue, traffic: Traffic): DeviceQueue {
  const submit = queue.submit.bind(queue);
  queue.submit = (list, options) => {
    const ticket = submit(list, options);
    traffic.submissions++;
    record(list, traffic);
    return ticket;
  };
  return queue;
}

function record({ numbers, objects, length }: RequestList, traffic: Traffic): void {
  const staging = new Set<unknown>();
  for (let at = 0; at < length * FIELDS; at += FIELDS) {
    const [op, source, from, target, to, byteLength] = numbers.subarray(at, at + FIELDS) as unknown as [
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    if (op === Op.barrier) traffic.barriers++;
    if (op !== Op.read && op !== Op.copy) continue;
    const into = objects[target] as DeviceBuffer;
    if (op === Op.read) {
      traffic[into.storage === "private" ? "read" : "staged"] += byteLength;
      if (into.storage === "shared") staging.add(into);
      continue;
    }
    // Out of private memory: that is how tests look at it.
    if (into.storage !== "private") continue;
    const buffer = objects[source] as DeviceBuffer;
    if (buffer.file !== undefined) traffic.mapped += byteLength;
    else if (staging.has(buffer)) {
      traffic.onward += byteLength;
      traffic.onwardCopies++;
    } else traffic.uploads.push({ from, to, byteLength });
  }
}
