/** The functions of `headrace.h`, each with its declaration above it; a test compares them with the header. */
import type { FFIFunction } from "bun:ffi";
import { HeadraceError } from "../../errors.ts";

/** What `library.ts` asks before it binds the rest: these two never change. */
export const VERSION_SYMBOLS = {
  // uint32_t hr_abi_version(void);
  hr_abi_version: { args: [], returns: "u32" },
  // uint32_t hr_struct_sizes(uint32_t *sizes, uint32_t capacity);
  hr_struct_sizes: { args: ["ptr", "u32"], returns: "u32" },
} as const satisfies Record<string, FFIFunction>;

/** All others. */
export const SYMBOLS = {
  // double hr_clock_ms(void);
  hr_clock_ms: { args: [], returns: "f64" },
  // uint32_t hr_device_count(void);
  hr_device_count: { args: [], returns: "u32" },
  // hr_status hr_device_open(uint32_t ordinal, const hr_device_options *options, hr_handle *device, int32_t *wake_fd, hr_error *error);
  hr_device_open: { args: ["u32", "ptr", "ptr", "ptr", "ptr"], returns: "i32" },
  // hr_status hr_device_info_get(hr_handle device, hr_device_info *info, hr_error *error);
  hr_device_info_get: { args: ["u32", "ptr", "ptr"], returns: "i32" },
  // hr_status hr_device_poll(hr_handle device, hr_completion *completions, uint32_t capacity);
  hr_device_poll: { args: ["u32", "ptr", "u32"], returns: "i32" },
  // hr_status hr_device_wait(hr_handle device, hr_completion *completions, uint32_t capacity, uint32_t timeout_ms);
  hr_device_wait: { args: ["u32", "ptr", "u32", "u32"], returns: "i32" },
  // hr_status hr_device_ping(hr_handle device);
  hr_device_ping: { args: ["u32"], returns: "i32" },
  // hr_status hr_device_open_handles(hr_handle device);
  hr_device_open_handles: { args: ["u32"], returns: "i32" },
  // hr_status hr_file_open(hr_handle device, const char *path, uint32_t flags, uint32_t codec, hr_handle *file, uint64_t *byte_length, hr_error *error);
  hr_file_open: { args: ["u32", "ptr", "u32", "u32", "ptr", "ptr", "ptr"], returns: "i32" },
  // hr_status hr_file_length(hr_handle file, uint64_t *byte_length, hr_error *error);
  hr_file_length: { args: ["u32", "ptr", "ptr"], returns: "i32" },
  // hr_status hr_file_read(hr_handle file, uint64_t offset, uint64_t byte_length, void *bytes, uint64_t *done, hr_error *error);
  hr_file_read: { args: ["u32", "u64", "u64", "ptr", "ptr", "ptr"], returns: "i32" },
  // hr_status hr_file_preallocate(hr_handle file, uint64_t byte_length, hr_error *error);
  hr_file_preallocate: { args: ["u32", "u64", "ptr"], returns: "i32" },
  // hr_status hr_file_map(hr_handle file, uint64_t offset, uint64_t byte_length, hr_handle *buffer, hr_error *error);
  hr_file_map: { args: ["u32", "u64", "u64", "ptr", "ptr"], returns: "i32" },
  // hr_status hr_buffer_create(hr_handle parent, uint64_t byte_length, uint32_t storage, hr_handle *buffer, hr_error *error);
  hr_buffer_create: { args: ["u32", "u64", "u32", "ptr", "ptr"], returns: "i32" },
  // hr_status hr_buffer_info_get(hr_handle buffer, hr_buffer_info *info, hr_error *error);
  hr_buffer_info_get: { args: ["u32", "ptr", "ptr"], returns: "i32" },
  // hr_status hr_buffer_check(hr_handle buffer, hr_error *error);
  hr_buffer_check: { args: ["u32", "ptr"], returns: "i32" },
  // hr_status hr_buffer_advise(hr_handle buffer, uint32_t advice, uint64_t offset, uint64_t byte_length);
  hr_buffer_advise: { args: ["u32", "u32", "u64", "u64"], returns: "i32" },
  // hr_status hr_heap_create(hr_handle device, uint64_t byte_length, uint32_t storage, hr_handle *heap, hr_error *error);
  hr_heap_create: { args: ["u32", "u64", "u32", "ptr", "ptr"], returns: "i32" },
  // hr_status hr_address_table_create(hr_handle device, const hr_handle *buffers, const double *offsets, uint32_t count, hr_handle *table, hr_error *error);
  hr_address_table_create: { args: ["u32", "ptr", "ptr", "u32", "ptr", "ptr"], returns: "i32" },
  // hr_status hr_event_create(hr_handle device, hr_handle *event, hr_error *error);
  hr_event_create: { args: ["u32", "ptr", "ptr"], returns: "i32" },
  // hr_status hr_event_signal(hr_handle event, uint64_t value, hr_error *error);
  hr_event_signal: { args: ["u32", "u64", "ptr"], returns: "i32" },
  // hr_status hr_event_value(hr_handle event, uint64_t *value, hr_error *error);
  hr_event_value: { args: ["u32", "ptr", "ptr"], returns: "i32" },
  // hr_status hr_library_create(hr_handle device, const char *source, const char *macros, uint32_t language, hr_handle *library, hr_error *error);
  hr_library_create: { args: ["u32", "ptr", "ptr", "u32", "ptr", "ptr"], returns: "i32" },
  // hr_status hr_pipeline_create(hr_handle library, const char *function, const hr_constant *constants, uint32_t count, const char *archive, hr_handle *pipeline, hr_pipeline_info *info, hr_error *error);
  hr_pipeline_create: { args: ["u32", "ptr", "ptr", "u32", "ptr", "ptr", "ptr", "ptr"], returns: "i32" },
  // hr_status hr_matmul_create(hr_handle device, uint32_t inner, uint32_t outputs, uint32_t output_stride, uint32_t type, uint32_t output_type, uint32_t accumulate, hr_handle *pipeline, hr_error *error);
  hr_matmul_create: {
    args: ["u32", "u32", "u32", "u32", "u32", "u32", "u32", "ptr", "ptr"],
    returns: "i32",
  },
  // hr_status hr_sequence_create(hr_handle device, const hr_dispatch *dispatches, uint32_t dispatch_count, const hr_binding *bindings, uint32_t binding_count, const uint8_t *constants, uint32_t constants_length, hr_handle *sequence, hr_error *error);
  hr_sequence_create: {
    args: ["u32", "ptr", "u32", "ptr", "u32", "ptr", "u32", "ptr", "ptr"],
    returns: "i32",
  },
  // hr_status hr_queue_create(hr_handle device, hr_handle *queue, hr_error *error);
  hr_queue_create: { args: ["u32", "ptr", "ptr"], returns: "i32" },
  // hr_status hr_queue_submit(hr_handle queue, const hr_submission *submission, double ticket, hr_completion *ended, hr_error *error);
  hr_queue_submit: { args: ["u32", "ptr", "f64", "ptr", "ptr"], returns: "i32" },
  // hr_status hr_queue_cancel(hr_handle queue, double ticket, hr_status status);
  hr_queue_cancel: { args: ["u32", "f64", "i32"], returns: "i32" },
  // hr_status hr_queue_error(hr_handle queue, double ticket, hr_error *error);
  hr_queue_error: { args: ["u32", "f64", "ptr"], returns: "i32" },
  // hr_status hr_compress(hr_handle queue, const char *source, const char *target, uint32_t codec, uint64_t chunk_bytes, double ticket, hr_error *error);
  hr_compress: { args: ["u32", "ptr", "ptr", "u32", "u64", "f64", "ptr"], returns: "i32" },
  // hr_status hr_compress_progress(hr_handle queue, double ticket, double *bytes_done, hr_error *error);
  hr_compress_progress: { args: ["u32", "f64", "ptr", "ptr"], returns: "i32" },
  // hr_status hr_close(hr_handle any);
  hr_close: { args: ["u32"], returns: "i32" },
} as const satisfies Record<string, FFIFunction>;

/** What each type of argument is passed as. A pointer that may be NULL is given as `null`, in so many words. */
interface Passed {
  u32: number;
  i32: number;
  u64: number;
  f64: number;
  ptr: NodeJS.TypedArray | DataView | null;
}
interface Returned {
  u32: number;
  i32: number;
  f64: number;
}
type Arguments<T extends readonly (keyof Passed)[]> = { -readonly [K in keyof T]: Passed[T[K]] };

/** The functions as TypeScript calls them. */
export type Checked<T extends Record<string, FFIFunction>> = {
  readonly [K in keyof T]: T[K] extends {
    readonly args: infer A extends readonly (keyof Passed)[];
    readonly returns: infer R extends keyof Returned;
  }
    ? (...args: Arguments<A>) => Returned[R]
    : never;
};

/** Wraps bound functions: an argument that is missing would reach C as NULL or 0, and a number that does not fit
 * its type as another one. Throws `BAD_OPTION`, which only a mistake in this folder can cause. */
export function checked<T extends Record<string, FFIFunction>>(table: T, bound: object): Checked<T> {
  const functions = bound as Readonly<Record<string, (...args: unknown[]) => number>>;
  const wrapped: Record<string, (...args: unknown[]) => number> = {};
  for (const [name, { args: types = [] }] of Object.entries<FFIFunction>(table)) {
    const call = functions[name]!;
    wrapped[name] = (...args) => {
      if (args.length !== types.length) throw refused(name, `${args.length} of ${types.length} arguments`);
      for (let i = 0; i < types.length; i++) {
        if (!fits(types[i] as keyof Passed, args[i])) throw refused(name, `argument ${i} ${String(args[i])}`);
      }
      return call(...args);
    };
  }
  return wrapped as unknown as Checked<T>;
}

function fits(type: keyof Passed, value: unknown): boolean {
  if (type === "ptr") return value === null || (ArrayBuffer.isView(value) && value.byteLength > 0);
  if (typeof value !== "number") return false;
  switch (type) {
    case "u32":
      return value >= 0 && value <= 0xffffffff && Number.isInteger(value);
    case "i32":
      return value === (value | 0);
    case "u64":
      return value >= 0 && Number.isSafeInteger(value);
    default:
      return true;
  }
}

function refused(name: string, what: string): HeadraceError {
  return new HeadraceError("BAD_OPTION", `${name} cannot be called with ${what}`);
}
