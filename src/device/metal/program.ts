/**
 * A list of requests as `hr_queue_submit` takes it. The requests' numbers have the library's layout already, so
 * that most lists are passed as they are; objects become handles. The library checks all numbers.
 */
import { ptr } from "bun:ffi";
import { HeadraceError } from "../../errors.ts";
import { closedError } from "../common/errors.ts";
import {
  checkRange,
  type DispatchCall,
  FIELDS,
  OFFSET_FIELDS,
  Op,
  type RequestList,
  type RequestObject,
} from "../requests.ts";
import { STRUCTS } from "./abi.ts";
import type { MetalContext } from "./context.ts";
import { Dispatches } from "./dispatches.ts";
import { MetalEvent } from "./event.ts";
import { MetalFile } from "./file.ts";
import { MetalBuffer } from "./memory.ts";
import { MetalPipeline } from "./pipeline.ts";
import { MetalSequence } from "./sequence.ts";

const { byteLength: SUBMISSION, fields: AT } = STRUCTS.hr_submission;

/** Which file each request uses, for messages. */
export interface RequestPaths {
  /** Of the request with that number, or of all where there is only one file. */
  pathOf(request: number | undefined): string | undefined;
}

const NO_PATHS: RequestPaths = { pathOf: () => undefined };

/** Reusable; what it points to is right until the list or this changes. */
export class Program {
  /** The hr_submission. */
  readonly submission = new Uint32Array(new ArrayBuffer(SUBMISSION));
  readonly #context: MetalContext;
  readonly #dispatches: Dispatches;
  #objects = new Uint32Array(new ArrayBuffer(64 * 4));
  #numObjects = 0;
  /** Requests of a list with dispatches, which are renumbered. */
  #requests = new Float64Array(0);
  /** The number of the dispatch that an object is; -1 for others. */
  readonly #dispatchOf: number[] = [];
  /** The path of the file that an object is or shows. */
  readonly #paths: (string | undefined)[] = [];
  #numPaths = 0;
  readonly #nameBuffer = (buffer: MetalBuffer): number => this.#push(buffer.region.handle);

  constructor(context: MetalContext) {
    this.#context = context;
    this.#dispatches = new Dispatches(context);
  }

  /** Throws `BAD_OPTION` and `CLOSED` for objects that cannot be used. */
  load(list: RequestList): void {
    this.#numObjects = 0;
    this.#numPaths = 0;
    this.#paths.length = 0;
    this.#dispatchOf.length = 0;
    this.#dispatches.clear();
    const { objects } = list;
    checkOffsets(list);
    for (let i = 0; i < objects.length; i++) this.#addObject(objects[i]!);
    // Buffers of dispatches come after the list's own objects, whose numbers stay.
    let numCalls = 0;
    for (let i = 0; i < objects.length; i++) {
      const object = objects[i]!;
      const call = isDispatch(object);
      this.#dispatchOf.push(call ? this.#dispatches.add(object, this.#nameBuffer) : -1);
      if (call) numCalls++;
    }
    this.#fill(list, numCalls > 0 ? this.#renumbered(list) : list.numbers);
  }

  /** Which files the loaded list uses. Keeps nothing of the list, which may change. */
  paths(list: RequestList): RequestPaths {
    if (this.#numPaths === 0) return NO_PATHS;
    const paths = [...this.#paths];
    if (this.#numPaths === 1) {
      const only = paths.find((path) => path !== undefined);
      return { pathOf: () => only };
    }
    const objectOf = new Int32Array(list.length);
    for (let request = 0; request < list.length; request++) {
      const source = list.numbers[request * FIELDS + 1]!;
      const target = list.numbers[request * FIELDS + 3]!;
      objectOf[request] = paths[source] === undefined ? target : source;
    }
    return { pathOf: (request = -1) => paths[objectOf[request] ?? -1] };
  }

  #addObject(object: RequestObject): void {
    if (object instanceof MetalBuffer) {
      if (object.region.context !== this.#context) throw this.#foreign("a buffer");
      if (object.closed) throw closedError("a buffer of the submission");
      this.#push(object.region.handle, object.file?.path);
    } else if (object instanceof MetalFile) {
      if (object.context !== this.#context) throw this.#foreign(`the file ${object.path}`);
      object.assertOpen();
      this.#push(object.requestHandle, object.requestName);
    } else if (object instanceof MetalEvent || object instanceof MetalSequence) {
      const what = object instanceof MetalEvent ? "event" : "sequence";
      if (object.context !== this.#context) throw this.#foreign(`an object (a ${what})`);
      if (object.closed) throw closedError(`the ${what} of the submission`);
      this.#push(object.handle);
    } else if (isDispatch(object)) this.#addPipeline(object);
    else throw this.#foreign("an object");
  }

  /** A dispatch takes a place among the objects, so that the others keep theirs. */
  #addPipeline({ pipeline }: DispatchCall): void {
    if (!(pipeline instanceof MetalPipeline)) throw this.#foreign("a pipeline");
    this.#push(pipeline.handle);
  }

  #push(handle: number, path?: string): number {
    if (this.#numObjects === this.#objects.length) {
      const larger = new Uint32Array(new ArrayBuffer(this.#objects.byteLength * 2));
      larger.set(this.#objects);
      this.#objects = larger;
    }
    this.#objects[this.#numObjects] = handle;
    if (path !== undefined) {
      this.#paths[this.#numObjects] = path;
      this.#numPaths++;
    }
    return this.#numObjects++;
  }

  /** The list's requests, with dispatches numbered among themselves. */
  #renumbered(list: RequestList): Float64Array {
    const length = list.length * FIELDS;
    if (this.#requests.length < length) {
      this.#requests = new Float64Array(new ArrayBuffer(2 ** Math.ceil(Math.log2(length)) * 8));
    }
    const requests = this.#requests;
    requests.set(list.numbers.subarray(0, length));
    for (let at = 0; at < length; at += FIELDS) {
      if (requests[at] === Op.dispatch) requests[at + 1] = this.#dispatchOf[requests[at + 1]!] ?? -1;
    }
    return requests;
  }

  #fill(list: RequestList, requests: Float64Array): void {
    const { dispatches, numDispatches, bindings, numBindings, constants, constantsLength } = this.#dispatches;
    this.#point(AT.requests, requests, AT.request_count, list.length);
    this.#point(AT.objects, this.#objects, AT.object_count, this.#numObjects);
    this.#point(AT.dispatches, dispatches, AT.dispatch_count, numDispatches);
    this.#point(AT.bindings, bindings, AT.binding_count, numBindings);
    this.#point(AT.constants, constants, AT.constants_length, constantsLength);
    this.#point(AT.offsets, list.offsets, AT.offset_count, list.numOffsets);
  }

  /** Sets a pointer and its count. The address is taken anew each time: small arrays move. */
  #point(at: number, array: NodeJS.TypedArray, countAt: number, count: number): void {
    const address = count === 0 ? 0 : ptr(array);
    this.submission[at / 4] = address % 2 ** 32;
    this.submission[at / 4 + 1] = Math.floor(address / 2 ** 32);
    this.submission[countAt / 4] = count;
  }

  #foreign(what: string): HeadraceError {
    const { deviceName } = this.#context;
    return new HeadraceError("BAD_OPTION", `${what} of the submission is not of this ${deviceName} device`);
  }
}

/** The library knows the slots and how long their buffers are; it takes no other numbers. */
function checkOffsets({ offsets, numOffsets }: RequestList): void {
  for (let at = 0; at < numOffsets * OFFSET_FIELDS; at += OFFSET_FIELDS) {
    checkRange(`slot ${offsets[at]}`, offsets[at + 1]!, 0, Number.MAX_SAFE_INTEGER);
  }
}

function isDispatch(object: RequestObject): object is DispatchCall {
  return typeof object === "object" && object !== null && "pipeline" in object;
}
