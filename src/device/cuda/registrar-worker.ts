/** The Worker behind {@link Registrar}: it registers and releases ranges in a context of its own. */
import { OutCell } from "./cells.ts";
import { type CudaDriver, openDriver } from "./driver.ts";
import { cudaError } from "./errors.ts";
import { CONTEXT_BLOCKING } from "./flags.ts";

/** The first message to it. */
export interface RegistrarStart {
  readonly library: string;
  /** The CUdevice. */
  readonly device: number;
  readonly flags: number;
}

/** What it is asked for. */
export interface RegistrarJob {
  readonly id: number;
  readonly kind: "register" | "release" | "end";
  readonly addresses: readonly number[];
  /** Of what is registered. */
  readonly byteLength?: number;
}

/** `result` is the driver's last failure, or 0. Job 0 tells that it has started, or with `message` why it cannot. */
export interface RegistrarAnswer {
  readonly id: number;
  readonly result: number;
  readonly message?: string;
}

declare const self: Worker;

let driver: CudaDriver | undefined;
let context = 0;
let flags = 0;

self.onmessage = (event: MessageEvent<RegistrarStart | RegistrarJob>) => {
  const message = event.data;
  try {
    if ("id" in message) self.postMessage(run(message));
    else {
      start(message);
      self.postMessage({ id: 0, result: 0 } satisfies RegistrarAnswer);
    }
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    self.postMessage({ id: 0, result: -1, message: text } satisfies RegistrarAnswer);
  }
};

function start(message: RegistrarStart): void {
  driver = openDriver(message.library);
  flags = message.flags;
  const out = new OutCell();
  // The context stays the thread's own.
  const result = driver.symbols.cuCtxCreate_v2(out.clear(), CONTEXT_BLOCKING, message.device);
  if (result !== 0) throw cudaError(driver, "a context for registering mappings", result);
  context = out.u64;
}

function run({ id, kind, addresses, byteLength }: RegistrarJob): RegistrarAnswer {
  if (driver === undefined || context === 0) return { id, result: kind === "register" ? -1 : 0 };
  const { symbols } = driver;
  let failed = 0;
  for (const address of addresses) {
    const result =
      kind === "register"
        ? symbols.cuMemHostRegister_v2(address, byteLength ?? 0, flags)
        : symbols.cuMemHostUnregister(address);
    if (result !== 0) failed = result;
  }
  if (kind === "end") failed = symbols.cuCtxDestroy_v2(context);
  return { id, result: failed };
}
