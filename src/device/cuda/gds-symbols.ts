/** The functions of cuFile that are used, each with its declaration in NVIDIA's `cufile.h` above it, and its errors. */
import type { Signature } from "./symbols.ts";

/** A CUfileHandle_t is a pointer; a CUfileError_t comes by value, as two 32-bit numbers. Device memory is passed as
 * `void *`. */
export const CUFILE_SYMBOLS = {
  // CUfileError_t cuFileDriverOpen(void);
  cuFileDriverOpen: { args: [], returns: "pair" },
  // CUfileError_t cuFileDriverClose_v2(void);
  cuFileDriverClose_v2: { args: [], returns: "pair" },
  // CUfileError_t cuFileHandleRegister(CUfileHandle_t *fh, CUfileDescr_t *descr);
  cuFileHandleRegister: { args: ["bytes", "bytes"], returns: "pair" },
  // void cuFileHandleDeregister(CUfileHandle_t fh);
  cuFileHandleDeregister: { args: ["pointer"], returns: "nothing" },
  // CUfileError_t cuFileBufRegister(const void *bufPtr_base, size_t length, int flags);
  cuFileBufRegister: { args: ["pointer", "size", "i32"], returns: "pair" },
  // CUfileError_t cuFileBufDeregister(const void *bufPtr_base);
  cuFileBufDeregister: { args: ["pointer"], returns: "pair" },
  // ssize_t cuFileRead(CUfileHandle_t fh, void *bufPtr_base, size_t size, off_t file_offset, off_t bufPtr_offset);
  cuFileRead: { args: ["pointer", "pointer", "size", "size", "size"], returns: "count" },
  // ssize_t cuFileWrite(CUfileHandle_t fh, const void *bufPtr_base, size_t size, off_t file_offset, off_t bufPtr_offset);
  cuFileWrite: { args: ["pointer", "pointer", "size", "size", "size"], returns: "count" },
} as const satisfies Record<string, Signature>;

/** Not in all. */
export const PROPERTIES_SYMBOLS = {
  // CUfileError_t cuFileDriverGetProperties(CUfileDrvProps_t *props);
  cuFileDriverGetProperties: { args: ["bytes"], returns: "pair" },
} as const satisfies Record<string, Signature>;

/** CU_FILE_CUDA_DRIVER_ERROR: the other half of the answer says what CUDA said. */
export const CUDA_DRIVER_ERROR = 5011;

/** `CUfileOpError`, in words; those of batches, which are not used, are missing. */
export const CUFILE_ERRORS: Readonly<Record<number, string>> = {
  5001: "nvidia-fs is not loaded, and cufile.json does not allow compatibility mode",
  5002: "a property is not valid",
  5003: "a property is out of its range",
  5004: "nvidia-fs and this cuFile are of different versions",
  5005: "the version of nvidia-fs cannot be read",
  5006: "the driver of cuFile is being closed",
  5007: "this platform has no GPUDirect Storage",
  5008: "the file system has no GPUDirect Storage",
  5009: "the GPU has no GPUDirect Storage",
  5010: "nvidia-fs failed",
  [CUDA_DRIVER_ERROR]: "CUDA failed",
  5012: "the address is not one of the device",
  5013: "the memory is of the wrong kind",
  5014: "the range leaves the memory that was allocated",
  5015: "the memory is of another context",
  5016: "more memory than can be pinned",
  5017: "the range leaves the memory that was registered",
  5018: "the file is of a kind that cannot be read directly",
  5019: "the file is opened in a way that cannot be read directly",
  5020: "the file is not opened with O_DIRECT",
  5022: "an argument is not valid",
  5023: "the memory is registered already",
  5024: "the memory is not registered",
  5025: "no permission for nvidia-fs or the file",
  5026: "the driver of cuFile is open already",
  5027: "the file is not registered",
  5028: "the file is registered already",
  5029: "the GPU was not found",
  5030: "cuFile failed within",
  5031: "there was no descriptor for a file",
  5033: "nvidia-fs cannot be set up",
  5034: "cufile.json forbids GPUDirect Storage for this file",
  5036: "device memory cannot be pinned",
  5043: "out of memory",
  5044: "input or output failed",
  5045: "the memory cannot be registered",
  5047: "the context is not valid",
  5048: "nvidia-fs failed within",
};
