/** What the CUDA device asks of its lanes beside what the host does. */
export const CudaOp = {
  /** device memory → file */
  download: 111,
} as const;

/** The number of a file's further way, as entries have it: a descriptor with O_DIRECT, or, below 0, a handle of
 * cuFile's. */
export const wayNumbers = {
  ofDirect: (fd: number) => fd + 1,
  directOf: (way: number) => (way > 0 ? way - 1 : -1),
  ofHandle: (handle: number) => -handle,
  handleOf: (way: number) => (way < 0 ? -way : 0),
} as const;

/** A lane notes the driver's result `r` as this minus `r`: no errno is there. */
export const DRIVER_FAILURE = -1_000_000;

/** Bytes of a lane's first copy, which makes the driver set up what later ones use. */
export const SCRATCH_BYTES = 4096;

/** What a lane of the device needs beside what the host's do. */
export interface CudaLaneExtra {
  /** Of the driver's library. */
  readonly library: string;
  /** The CUcontext. */
  readonly context: number;
  /** Slices of a lane, of `sliceBytes` each. */
  readonly sliceBuffers: number;
  readonly sliceBytes: number;
  /** Address of memory for the slices of all lanes, {@link slicesLength} bytes each, in the order of the lanes. The
   * lanes pin it when they first need it; it stays until they are gone. */
  readonly slices: number;
  /** CUstreams that all lanes share: the copy engine is faster with one stream than when it goes from one to the next.
   * A slice's event comes right behind its copy, or a little later. */
  readonly upload: number;
  readonly download: number;
  /** Address of {@link SCRATCH_BYTES} of device memory that nobody reads. */
  readonly scratch: number;
  /** Path of libcufile, where files may be read by GPUDirect Storage. */
  readonly cufile: string | undefined;
}

/** Bytes from one slice to the next: whole pages, and room for what a direct read brings along on both sides. */
export function sliceStride(sliceBytes: number, pageSize: number): number {
  return (Math.ceil(sliceBytes / pageSize) + 2) * pageSize;
}

/** Bytes of one lane's slices. */
export function slicesLength(sliceBuffers: number, sliceBytes: number, pageSize: number): number {
  return sliceBuffers * sliceStride(sliceBytes, pageSize);
}
