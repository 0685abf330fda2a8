/**
 * The numbers of `headrace.h`: statuses, flags, and where the fields of its structs lie. A test compares all of
 * it with the header.
 */

/** `HR_ABI_VERSION`; the library must have the same. */
export const ABI_VERSION = 2;

/** `HR_OK` and the failures. */
export const Status = {
  OK: 0,
  INVALID: -1,
  CLOSED: -2,
  UNSUPPORTED: -3,
  OUT_OF_MEMORY: -4,
  OUT_OF_RANGE: -5,
  IO: -6,
  SHORT_READ: -7,
  FILE_CHANGED: -8,
  NOT_A_FILE: -9,
  CANCELLED: -10,
  TIMED_OUT: -11,
  DEVICE_FAILED: -12,
  DEVICE_LOST: -13,
  DECLINED: -14,
  COMPILE_FAILED: -15,
  CORRUPT: -16,
} as const;

/** `HR_DEVICE_…`, of hr_device_info.flags. */
export const DeviceFlag = {
  UNIFIED_MEMORY: 1,
  RESIDENCY_SETS: 2,
  CAN_STREAM: 4,
  STAND_IN: 8,
  REMOVABLE: 16,
  LOW_POWER: 32,
  MATMUL: 64,
} as const;

/** `HR_OPTION_…`, of hr_device_options.flags. */
export const OptionFlag = {
  RETRY_ONCE: 1,
  NO_RESIDENCY: 2,
  BARRIER_FSYNC: 4,
  FULL_FSYNC: 8,
  GPU_BEHIND: 16,
} as const;

/** `HR_CODEC_…`: bit numbers of hr_device_info.codecs. */
export const Codec = { ZLIB: 0, LZFSE: 1, LZ4: 2, LZMA: 3, LZBITMAP: 4 } as const;
/** `HR_CODEC_NONE` */
export const CODEC_NONE = 0xffffffff;

/** `HR_FILE_…` */
export const FileFlag = { WRITE: 1, NO_CACHE: 2, STREAM: 4 } as const;

/** `HR_SHARED` and `HR_PRIVATE`. */
export const StorageMode = { SHARED: 0, PRIVATE: 1 } as const;

/** `HR_F32` and `HR_F16`. */
export const ElementType = { F32: 0, F16: 1 } as const;

/** `HR_SEQUENTIAL` and so on. */
export const AdviceCode = { SEQUENTIAL: 0, RANDOM: 1, WILL_NEED: 2, DONT_NEED: 3 } as const;

/** `HR_ENDED` and `HR_QUIET`, of hr_completion.flags. */
export const CompletionFlag = { ENDED: 1, QUIET: 2 } as const;

/** Of hr_constant.type. */
export const ConstantType = { bool: 0, int: 1, uint: 2, float: 3 } as const;

/** Bytes of a struct, and where its fields start. */
export interface StructLayout {
  readonly byteLength: number;
  readonly fields: Readonly<Record<string, number>>;
}

/** In the order of `hr_struct_sizes`. */
export const STRUCTS = {
  hr_error: { byteLength: 256, fields: { status: 0, os_errno: 4, message: 8 } },
  hr_device_info: {
    byteLength: 224,
    fields: {
      flags: 0,
      gpu_family: 4,
      metal_version: 8,
      simd_width: 12,
      codecs: 16,
      lanes: 20,
      performance_cores: 24,
      ordinal: 28,
      page_size: 32,
      max_buffer_length: 40,
      working_set: 48,
      max_map_length: 56,
      map_budget: 64,
      max_threadgroup_memory: 72,
      allocated_size: 80,
      registry_id: 88,
      name: 96,
    },
  },
  hr_device_options: {
    byteLength: 72,
    fields: {
      flags: 0,
      lanes: 4,
      write_lanes: 8,
      io_queues: 12,
      io_max_commands: 16,
      io_max_command_buffers: 20,
      io_priority: 24,
      io_serial: 28,
      piece_bytes: 32,
      inline_copy_bytes: 40,
      map_budget: 48,
      io_scratch_bytes: 56,
      keep_alive_ms: 64,
    },
  },
  hr_buffer_info: {
    byteLength: 32,
    fields: { byte_length: 0, host_address: 8, gpu_address: 16, native_object: 24 },
  },
  hr_request: {
    byteLength: 48,
    fields: { op: 0, source: 8, source_offset: 16, target: 24, target_offset: 32, byte_length: 40 },
  },
  hr_dispatch: {
    byteLength: 56,
    fields: {
      pipeline: 0,
      first_binding: 4,
      binding_count: 8,
      constants_offset: 12,
      constants_length: 16,
      constants_index: 20,
      threads: 24,
      group: 36,
      threadgroup_memory: 48,
      reserved: 52,
    },
  },
  hr_binding: { byteLength: 32, fields: { buffer: 0, offset: 8, index: 16, slot: 24 } },
  hr_offset: { byteLength: 16, fields: { slot: 0, offset: 8 } },
  hr_submission: {
    byteLength: 72,
    fields: {
      requests: 0,
      objects: 8,
      dispatches: 16,
      bindings: 24,
      constants: 32,
      offsets: 40,
      request_count: 48,
      object_count: 52,
      dispatch_count: 56,
      binding_count: 60,
      constants_length: 64,
      offset_count: 68,
    },
  },
  hr_completion: {
    byteLength: 128,
    fields: {
      queue: 0,
      ticket: 8,
      status: 16,
      flags: 24,
      bytes_done: 32,
      submitted_ms: 40,
      started_ms: 48,
      encoded_ms: 56,
      committed_ms: 64,
      scheduled_ms: 72,
      kernel_start_ms: 80,
      kernel_end_ms: 88,
      gpu_start_ms: 96,
      gpu_end_ms: 104,
      ended_ms: 112,
      os_errno: 120,
    },
  },
  hr_constant: { byteLength: 16, fields: { index: 0, type: 4, bits: 8, reserved: 12 } },
  hr_pipeline_info: {
    byteLength: 16,
    fields: { simd_width: 0, max_threads: 4, static_threadgroup_memory: 8, from_archive: 12 },
  },
} as const satisfies Record<string, StructLayout>;

/** Float64 numbers a row of hr_completion, and the fields by number. */
export const ROW = STRUCTS.hr_completion.byteLength / 8;
export const Row = {
  queue: 0,
  ticket: 1,
  status: 2,
  flags: 3,
  bytesDone: 4,
  submittedMs: 5,
  startedMs: 6,
  encodedMs: 7,
  committedMs: 8,
  scheduledMs: 9,
  kernelStartMs: 10,
  kernelEndMs: 11,
  gpuStartMs: 12,
  gpuEndMs: 13,
  endedMs: 14,
  osErrno: 15,
} as const;
