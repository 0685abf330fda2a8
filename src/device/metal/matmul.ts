/** Matrix products by Metal Performance Shaders: pipelines that dispatches name like kernels. */
import { HeadraceError } from "../../errors.ts";
import { checkMatmul, type Matmul, matmulName, resolveMatmul } from "../common/matmul.ts";
import type { MatmulOptions } from "../device.ts";
import type { DispatchCall } from "../requests.ts";
import { ElementType } from "./abi.ts";
import type { MetalContext } from "./context.ts";
import { MetalPipeline } from "./pipeline.ts";

class MetalMatmul extends MetalPipeline {
  readonly #matmul: Matmul;

  constructor(context: MetalContext, handle: number, matmul: Matmul) {
    super(context, handle, matmulName(matmul));
    this.#matmul = matmul;
  }

  override checkCall({ buffers, constants, threads }: DispatchCall): void {
    const places = buffers.map(({ buffer, offset }) => ({
      byteLength: buffer.byteLength,
      offset,
      // Where a mapping does not start at a multiple of its elements' size, the library says so.
      address: 0,
    }));
    checkMatmul(this.#matmul, places, constants, threads);
  }
}

/** As {@link Device.createMatmul}. Throws `UNSUPPORTED` for BF16, which the library does not multiply. */
export function createMetalMatmul(context: MetalContext, options: MatmulOptions): MetalPipeline {
  const matmul = resolveMatmul(options);
  const { inner, outputs, outputStride, type, outputType, accumulate } = matmul;
  if (type === "BF16" || outputType === "BF16") {
    const text = `${matmulName(matmul)}: Metal Performance Shaders multiply F32 and F16 alone`;
    throw new HeadraceError("UNSUPPORTED", text);
  }
  const { symbols, handle: device, handleOut, error } = context;
  const handle = context.make(matmulName(matmul), () =>
    symbols.hr_matmul_create(
      device,
      inner,
      outputs,
      outputStride,
      ElementType[type],
      ElementType[outputType],
      accumulate ? 1 : 0,
      handleOut,
      error.bytes,
    ),
  );
  return new MetalMatmul(context, handle, matmul);
}
