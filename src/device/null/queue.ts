/** A queue that checks and orders like the host's, and writes down what it was asked for. */
import type { DeviceQueue, SubmitOptions, Ticket } from "../device.ts";
import type { Executor } from "../host/execute.ts";
import { HostQueue, type QueueShared } from "../host/queue.ts";
import {
  FIELDS,
  OFFSET_FIELDS,
  Op,
  type RequestList,
  type RequestObject,
  type SlotOffset,
} from "../requests.ts";

/** One request as data. Fields that an operation does not use are absent. */
export interface RecordedRequest {
  readonly op: keyof typeof Op;
  readonly source?: RequestObject;
  readonly sourceOffset?: number;
  readonly target?: RequestObject;
  readonly targetOffset?: number;
  readonly byteLength?: number;
  /** Of `signal` and `wait`. */
  readonly value?: number;
  /** Of `replay`. */
  readonly offsets?: readonly SlotOffset[];
}

/** One submission that was accepted. */
export interface RecordedSubmission {
  readonly queue: DeviceQueue;
  readonly ticket: Ticket;
  readonly requests: readonly RecordedRequest[];
}

export class NullQueue extends HostQueue {
  readonly #record: (submission: RecordedSubmission) => void;

  constructor(
    shared: QueueShared,
    executor: Executor,
    onClose: () => void,
    record: (submission: RecordedSubmission) => void,
  ) {
    super(shared, executor, onClose);
    this.#record = record;
  }

  override submit(list: RequestList, options?: SubmitOptions): Ticket {
    const ticket = super.submit(list, options);
    this.#record({ queue: this, ticket, requests: decode(list) });
    return ticket;
  }
}

const NAMES = new Map<number, keyof typeof Op>(
  Object.entries(Op).map(([name, op]) => [op, name as keyof typeof Op]),
);

function decode(list: RequestList): RecordedRequest[] {
  const requests: RecordedRequest[] = [];
  for (let request = 0; request < list.length; request++) {
    const fields = list.numbers.subarray(request * FIELDS, (request + 1) * FIELDS);
    const op = NAMES.get(fields[0]!)!;
    const source = list.objects[fields[1]!];
    const target = list.objects[fields[3]!];
    requests.push({
      op,
      ...(source === undefined ? {} : { source }),
      ...(target === undefined
        ? {}
        : { sourceOffset: fields[2]!, target, targetOffset: fields[4]!, byteLength: fields[5]! }),
      ...(op === "signal" || op === "wait" ? { value: fields[5]! } : {}),
      ...(op === "replay" ? { offsets: offsetsOf(list, fields[2]!, fields[5]!) } : {}),
    });
  }
  return requests;
}

function offsetsOf(list: RequestList, first: number, count: number): SlotOffset[] {
  return Array.from({ length: count }, (_, i) => {
    const at = (first + i) * OFFSET_FIELDS;
    return { slot: list.offsets[at]!, offset: list.offsets[at + 1]! };
  });
}
