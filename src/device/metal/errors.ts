/** From the library's statuses to this project's codes, and from its texts to messages. */
import { type ErrorCode, HeadraceError } from "../../errors.ts";
import { errnoError, errnoName } from "../common/errors.ts";
import { STRUCTS, Status } from "./abi.ts";

/** Every failure. `HR_IO` is told apart further by its errno. */
const CODES: Readonly<Record<Exclude<keyof typeof Status, "OK">, ErrorCode>> = {
  INVALID: "BAD_OPTION",
  CLOSED: "CLOSED",
  UNSUPPORTED: "UNSUPPORTED",
  OUT_OF_MEMORY: "OUT_OF_MEMORY",
  OUT_OF_RANGE: "OUT_OF_RANGE",
  IO: "IO_ERROR",
  SHORT_READ: "SHORT_READ",
  FILE_CHANGED: "FILE_CHANGED",
  NOT_A_FILE: "SOURCE_UNREADABLE",
  CANCELLED: "CANCELLED",
  TIMED_OUT: "TIMED_OUT",
  DEVICE_FAILED: "DEVICE_FAILED",
  DEVICE_LOST: "DEVICE_LOST",
  DECLINED: "UNSUPPORTED",
  COMPILE_FAILED: "BAD_KERNEL",
  CORRUPT: "BAD_STREAM",
};

const CODE_OF_STATUS: ReadonlyMap<number, ErrorCode> = new Map(
  Object.entries(CODES).map(([name, code]) => [Status[name as keyof typeof Status], code]),
);

/** `HR_SHORT_READ` for -7, and so on, in messages about the library itself. */
const NAME_OF_STATUS: ReadonlyMap<number, string> = new Map(
  Object.entries(Status).map(([name, status]) => [status, `HR_${name}`]),
);

const { os_errno: ERRNO_AT, message: MESSAGE_AT, status: STATUS_AT } = STRUCTS.hr_error.fields;
const decoder = new TextDecoder();

/** One `hr_error`, passed to a call and read when that has failed. */
export class NativeError {
  readonly bytes = new Uint8Array(new ArrayBuffer(STRUCTS.hr_error.byteLength));
  readonly #view = new DataView(this.bytes.buffer);

  get status(): number {
    return this.#view.getInt32(STATUS_AT, true);
  }

  get osErrno(): number {
    return this.#view.getInt32(ERRNO_AT, true);
  }

  get message(): string {
    const end = this.bytes.indexOf(0, MESSAGE_AT);
    return decoder.decode(this.bytes.subarray(MESSAGE_AT, end < 0 ? undefined : end));
  }

  /** Forgets what an earlier call left. */
  clear(): void {
    this.#view.setInt32(STATUS_AT, 0, true);
    this.#view.setInt32(ERRNO_AT, 0, true);
    this.#view.setUint8(MESSAGE_AT, 0);
  }

  /** The failure that a call with `status` has left here; `context`, most often a path, is put in front. */
  toError(status: number, context?: string): HeadraceError {
    return nativeError(status, this.message, this.osErrno, context);
  }
}

/** The failure for `status`. `text` is the library's, empty where it gave none. */
export function nativeError(
  status: number,
  text: string,
  osErrno: number,
  context: string | undefined,
): HeadraceError {
  const what = text.length > 0 ? text : `the Metal library answered ${NAME_OF_STATUS.get(status) ?? status}`;
  const message = context === undefined ? what : `${context}: ${what}`;
  if (status === Status.IO && osErrno !== 0) {
    // The library's text ends in the errno's name where it knows it.
    const name = errnoName(osErrno);
    return errnoError(message.endsWith(`: ${name}`) ? message.slice(0, -name.length - 2) : message, osErrno);
  }
  return new HeadraceError(CODE_OF_STATUS.get(status) ?? "DEVICE_FAILED", message);
}
