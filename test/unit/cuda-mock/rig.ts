/** What the tests of the mock of CUDA share: the library, and CUDA's calls in the forms that they need. */
import { afterAll, beforeEach, expect } from "bun:test";
import { buildCudaMock, type CudaMock, openCudaMock } from "../../cuda-mock/mock.ts";
import type { HostMemory } from "../../cuda-mock/symbols.ts";
import { addressOf, bindCuda, type CudaSymbols, hostMemory, made, text } from "../../cuda-mock/symbols.ts";

const built = buildCudaMock();
/** Whether there is no mock. */
export const noMock = "missing" in built;
/** Why not, to be told behind a name. */
export const reason = "missing" in built ? ` (left out: ${built.missing})` : "";

export const PAGE = 4096;
const NON_BLOCKING = 1;
/** PORTABLE, DEVICEMAP. */
export const WRITABLE = 1 | 2;
/** These, and READ_ONLY. */
export const READ_ONLY = WRITABLE | 8;
/** Options of NVRTC's as the device gives them. */
export const OPTIONS = ["--gpu-architecture=compute_80", "--fmad=false"];

/** Resets the mock before each test of the describe block around it; host memory lives as long as its test. */
export function useMock(): MockRig {
  const path = "missing" in built ? "" : built.path;
  const rig = new MockRig(path);
  beforeEach(() => rig.start());
  afterAll(() => rig.end());
  return rig;
}

export class MockRig {
  readonly #path: string;
  readonly #memory: HostMemory[] = [];
  #bound: { cuda: CudaSymbols; mock: CudaMock } | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  get #both() {
    this.#bound ??= { cuda: bindCuda(this.#path), mock: openCudaMock(this.#path) };
    return this.#bound;
  }
  get cuda(): CudaSymbols {
    return this.#both.cuda;
  }
  get mock(): CudaMock {
    return this.#both.mock;
  }

  start(): void {
    this.mock.reset();
    for (const one of this.#memory.splice(0)) one.free();
  }
  end(): void {
    if (this.#path !== "") this.start();
  }

  host(byteLength: number, fill = 0): HostMemory {
    const one = hostMemory(byteLength);
    one.bytes.fill(fill);
    this.#memory.push(one);
    return one;
  }
  pinned(byteLength: number, fill = 0): HostMemory {
    const one = this.host(byteLength, fill);
    expect(this.cuda.cuMemHostRegister_v2(one.address, byteLength, WRITABLE)).toBe(0);
    return one;
  }

  context(device = 0): number {
    expect(this.cuda.cuInit(0)).toBe(0);
    return made((out) => this.cuda.cuCtxCreate_v2(out, 0, device));
  }
  stream(flags = NON_BLOCKING): number {
    return made((out) => this.cuda.cuStreamCreate(out, flags));
  }
  event(flags = 0): number {
    return made((out) => this.cuda.cuEventCreate(out, flags));
  }
  allocate(byteLength: number): number {
    return made((out) => this.cuda.cuMemAlloc_v2(out, byteLength));
  }
  download(address: number, byteLength: number): Uint8Array<ArrayBuffer> {
    const to = this.pinned(Math.ceil(byteLength / PAGE) * PAGE);
    expect(this.cuda.cuMemcpyDtoHAsync_v2(to.address, address, byteLength, 0)).toBe(0);
    expect(this.cuda.cuStreamSynchronize(0)).toBe(0);
    return to.bytes.slice(0, byteLength);
  }
  upload(bytes: Uint8Array): number {
    const to = this.allocate(bytes.length);
    expect(this.cuda.cuMemcpyHtoDAsync_v2(to, addressOf(bytes), bytes.length, 0)).toBe(0);
    return to;
  }

  /** NVRTC's code, and its log. */
  compile(source: string, options = OPTIONS) {
    const { cuda } = this;
    const program = made((out) =>
      cuda.nvrtcCreateProgram(out, text(source), text("kernel.cu"), 0, null, null),
    );
    const words = options.map(text);
    const code = cuda.nvrtcCompileProgram(program, options.length, pointers(words.map(addressOf)));
    const log = new Uint8Array(made((out) => cuda.nvrtcGetProgramLogSize(program, out)));
    expect(cuda.nvrtcGetProgramLog(program, log)).toBe(0);
    return { program, code, log: new TextDecoder().decode(log.subarray(0, -1)) };
  }
  ptx(program: number): Uint8Array {
    const ptx = new Uint8Array(made((out) => this.cuda.nvrtcGetPTXSize(program, out)));
    expect(this.cuda.nvrtcGetPTX(program, ptx)).toBe(0);
    return ptx;
  }
  /** A module of a text. */
  load(source: string, options = OPTIONS): number {
    const { program, code, log } = this.compile(source, options);
    expect([code, log]).toEqual([0, ""]);
    const loaded = made((out) => this.cuda.cuModuleLoadData(out, this.ptx(program)));
    expect(this.cuda.nvrtcDestroyProgram(pointers([program]))).toBe(0);
    return loaded;
  }
  kernel(module: number, name: string): number {
    return made((out) => this.cuda.cuModuleGetFunction(out, module, text(name)));
  }
  /** Each argument is its bytes. */
  launch(kernel: number, blocks: number, threads: number, args: readonly Uint8Array[], dynamic = 0): number {
    const list = pointers(args.map(addressOf));
    return this.cuda.cuLaunchKernel(kernel, blocks, 1, 1, threads, 1, 1, dynamic, 0, list, null);
  }
}

/** As C takes an array of them. */
export function pointers(values: readonly number[]): BigUint64Array {
  return BigUint64Array.from(values.length === 0 ? [0] : values, BigInt);
}

export function u64(value: number): Uint8Array {
  return new Uint8Array(new BigUint64Array([BigInt(value)]).buffer);
}

export function u32(...values: number[]): Uint8Array {
  return new Uint8Array(new Uint32Array(values).buffer);
}
