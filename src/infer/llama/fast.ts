/**
 * A pass's matrix products by the vendor's library: faster than the project's own kernel, and in an order of summation
 * that the rows of a pass, all together, decide. Inputs are rounded to the weights' type first; sums stay F32.
 */
import type { Device } from "../../device/device.ts";
import type { DispatchCall } from "../../device/requests.ts";
import { HeadraceError } from "../../errors.ts";
import type { Place } from "../../kernels/constants.ts";
import { narrowRowsCall, narrowRowsKernel } from "../../kernels/narrow.ts";
import type { StepRows } from "../../kernels/step.ts";
import { WEIGHT_BYTES, type WeightType } from "../../kernels/weights.ts";
import type { FastMemory } from "./memory.ts";
import type { Pipelines } from "./pipelines.ts";
import type { Linear, Weight } from "./weights.ts";

/** What one matrix product reads and writes. */
export interface Product {
  readonly x: Place;
  readonly y: Place;
  readonly gated?: boolean;
  readonly accumulate?: boolean;
}

/** Weights that lie one behind the other, as one. */
interface Run {
  readonly weight: Weight;
  readonly outputs: number;
}

/** Makes the launches of products, in the order in which they run. Borrows all. */
export class FastProducts {
  readonly #create: NonNullable<Device["createMatmul"]>;
  readonly #pipelines: Pipelines;
  readonly #memory: FastMemory;
  /** The input that the narrow memory holds already, and in which type. */
  #held: { readonly place: Place; readonly type: WeightType } | undefined;

  /** Throws `UNSUPPORTED` where the device has no such library. */
  constructor(device: Device, pipelines: Pipelines, memory: FastMemory) {
    const create = device.createMatmul;
    if (create === undefined) {
      const { name } = device.capabilities;
      const text = `fast: ${name} has no library of matrix products here`;
      throw new HeadraceError("UNSUPPORTED", `${text}; install it, as cuBLAS for CUDA, or leave fast out`);
    }
    this.#create = create;
    this.#pipelines = pipelines;
    this.#memory = memory;
  }

  /** The launches of one product; undefined for one with biases, which the library does not add. */
  calls(linears: readonly Linear[], rows: StepRows, product: Product): DispatchCall[] | undefined {
    if (linears.some(({ bias }) => bias !== undefined)) return undefined;
    const weights = linears.map(({ weight }) => weight);
    const [{ type, shape }] = weights as [Weight];
    const inner = shape[1]!;
    const launches: DispatchCall[] = [];
    const x = this.#input(product.x, inner, type, rows, launches);
    const y = product.gated ? { buffer: this.#memory.gates } : product.y;
    const outputStride = weights.reduce((total, weight) => total + weight.shape[0]!, 0);
    let offset = y.byteOffset ?? 0;
    for (const { weight, outputs } of runsOf(weights)) {
      const options = { inner, outputs, type, outputStride, accumulate: product.accumulate ?? false };
      const pipeline = this.#pipelines.keep(`fast ${JSON.stringify(options)}`, () => this.#create(options));
      const buffers = [
        { buffer: x.buffer, offset: x.byteOffset ?? 0 },
        { buffer: weight.buffer, offset: weight.byteOffset },
        { buffer: y.buffer, offset },
      ];
      // All rows that the launch is for: those past the count are nobody's.
      launches.push({ pipeline, buffers, constants: new Uint8Array(0), threads: rows.maxRows });
      offset += outputs * 4;
    }
    if (product.gated) launches.push(this.#open(product.y, outputStride / 2, type, rows));
    return launches;
  }

  /** Where x is in the weights' type; has it brought there. */
  #input(x: Place, width: number, type: WeightType, rows: StepRows, launches: DispatchCall[]): Place {
    if (type === "F32") return x;
    const { narrow } = this.#memory;
    const held = this.#held;
    this.#held = undefined;
    if (held?.place.buffer !== x.buffer || held.type !== type) {
      launches.push(this.#narrow({ x, y: { buffer: narrow }, width, to: type, gated: false, ...rows }));
    }
    return { buffer: narrow };
  }

  /** Multiplies what is behind gates by them: into `y`, or right into the narrow memory, where the next product will
   * look for it. */
  #open(y: Place, width: number, type: WeightType, rows: StepRows): DispatchCall {
    const isWide = type === "F32";
    if (!isWide) this.#held = { place: y, type };
    const to = isWide ? y : { buffer: this.#memory.narrow };
    return this.#narrow({ x: { buffer: this.#memory.gates }, y: to, width, to: type, gated: true, ...rows });
  }

  #narrow(options: Parameters<typeof narrowRowsCall>[1]): DispatchCall {
    const { to, gated = false } = options;
    const pipeline = this.#pipelines.get(`narrow ${to} ${gated}`, () => narrowRowsKernel({ to, gated }));
    return narrowRowsCall(pipeline, options);
  }
}

/** Joins neighbours in memory: one large product is faster than several. */
function runsOf(weights: readonly Weight[]): Run[] {
  const runs: { weight: Weight; outputs: number }[] = [];
  for (const weight of weights) {
    const last = runs.at(-1);
    const [outputs, inner] = weight.shape as [number, number];
    const end = last && last.weight.byteOffset + last.outputs * inner * WEIGHT_BYTES[weight.type];
    if (last?.weight.buffer === weight.buffer && end === weight.byteOffset) last.outputs += outputs;
    else runs.push({ weight, outputs });
  }
  return runs;
}
