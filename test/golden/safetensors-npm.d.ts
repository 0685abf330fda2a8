/** The npm package `safetensors` 0.0.1 comes without types; this is what the golden tests use of it. */
declare module "safetensors" {
  interface TensorInfo {
    dtype: string;
    shape: readonly number[];
    data_offsets: number[];
  }
  export class SafeTensor {
    constructor(file: Uint8Array);
    readonly metadata: Map<string, TensorInfo>;
    getTensor(name: string): Uint8Array;
  }
}
