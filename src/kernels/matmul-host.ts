/** The host's matrix product: by WebAssembly, with weights widened to floats piece by piece in its memory. */
import type { KernelSource } from "../device/device.ts";
import { type MatmulForm, matmulReference, type Operands, operandsOf } from "./matmul-reference.ts";
import { Simd } from "./wasm/simd.ts";
import { floatsOf, WEIGHT_BYTES } from "./weights.ts";

/** Bytes that rows of x, and widened weights, take at once, unless the fewest that can be taken are more. */
const X_BYTES = 2 ** 22;
const PANEL_BYTES = 2 ** 18;
/** Longer rows than that are left to the reference: a few of them have to lie in the memory. */
const MAX_INNER = 2 ** 20;

/** The host form. A row's result has the same bits whatever other rows there are. */
export function matmulOnHost(form: MatmulForm): NonNullable<KernelSource["host"]> {
  let product: HostProduct | undefined;
  return (buffers, constants) => {
    const operands = operandsOf(form, buffers, constants);
    if (operands.inner > MAX_INNER) {
      matmulReference(form, buffers, constants);
      return;
    }
    product ??= new HostProduct(form);
    product.run(operands, buffers);
  };
}

/** Where things lie in the memory, in bytes, and how many there are at once. */
interface Layout {
  readonly rows: number;
  readonly weights: number;
  /** From one row of x, or of weights, to the next: whole vectors, filled up with zeros. */
  readonly stride: number;
  readonly x: number;
  /** Weights as they are stored. */
  readonly raw: number;
  readonly panel: number;
  readonly out: number;
  /** What gates open. */
  readonly opened: number;
}

class HostProduct {
  readonly #form: MatmulForm;
  readonly #simd = new Simd();

  constructor(form: MatmulForm) {
    this.#form = form;
  }

  run(operands: Operands, buffers: readonly Uint8Array[]): void {
    const { rows, outputs, inner, x } = operands;
    const layout = this.#layoutFor(operands);
    const parts = this.#form.gated ? outputs.slice(0, 1) : outputs;
    const bytes = new Uint8Array(x.buffer, x.byteOffset, x.byteLength);
    for (let row = 0; row < rows; row += layout.rows) {
      const count = Math.min(layout.rows, rows - row);
      this.#simd.copyRows(bytes.subarray(row * inner * 4), inner * 4, count, layout.x, layout.stride);
      let before = 0;
      for (const [part, ofPart] of parts.entries()) {
        for (let first = 0; first < ofPart; first += layout.weights) {
          const width = Math.min(layout.weights, ofPart - first);
          this.#multiply(operands, buffers, layout, { row, count, part, first, width, before });
        }
        before += ofPart;
      }
    }
  }

  #layoutFor({ inner, rows, outputs }: Operands): Layout {
    const stride = Math.ceil(inner / 8) * 32;
    const most = Math.ceil(Math.max(...outputs) / 4) * 4;
    const weights = Math.min(most, Math.max(4, Math.floor(PANEL_BYTES / stride / 4) * 4));
    const rowsAtOnce = Math.min(rows, Math.max(2, Math.floor(X_BYTES / stride)));
    const raw = rowsAtOnce * stride;
    const panel = raw + (this.#form.type === "F32" ? 0 : weights * (stride / 2));
    const out = panel + weights * stride;
    const opened = out + rowsAtOnce * weights * 4;
    this.#simd.reserve(opened + (this.#form.gated ? rowsAtOnce * weights * 4 : 0));
    return { rows: rowsAtOnce, weights, stride, x: 0, raw, panel, out, opened };
  }

  #multiply(operands: Operands, buffers: readonly Uint8Array[], layout: Layout, block: Block): void {
    const { run } = this.#simd;
    const { count, part, width } = block;
    const rowBytes = layout.weights * 4;
    const dots = (of: number, out: number) => {
      this.#widen(buffers[1 + of]!, operands.inner, layout, block);
      const weights = Math.ceil(width / 4) * 4;
      run.dots(layout.x, count, layout.panel, weights, layout.stride, out, rowBytes);
      if (this.#form.bias) this.#addBias(buffers[4 + of]!, out, layout, block);
    };
    dots(part, layout.out);
    if (this.#form.gated) {
      dots(1, layout.opened);
      run.gate(layout.out, layout.opened, count * layout.weights);
    }
    this.#store(operands, layout, block);
  }

  /** Brings a block's weights into the memory as floats. */
  #widen(weights: Uint8Array, inner: number, layout: Layout, { first, width }: Block): void {
    const { type } = this.#form;
    const rowBytes = inner * WEIGHT_BYTES[type];
    const from = weights.subarray(first * rowBytes);
    if (type === "F32") {
      this.#simd.copyRows(from, rowBytes, width, layout.panel, layout.stride);
      return;
    }
    const { run } = this.#simd;
    this.#simd.copyRows(from, rowBytes, width, layout.raw, layout.stride / 2);
    const elements = width * (layout.stride / 4);
    if (type === "BF16") run.widenBfloats(layout.raw, layout.panel, elements);
    else run.widenHalves(layout.raw, layout.panel, elements);
  }

  #addBias(bytes: Uint8Array, out: number, layout: Layout, { first, width, count }: Block): void {
    const bias = floatsOf(this.#form.type, bytes, first, width);
    const { floats } = this.#simd;
    for (let row = 0; row < count; row++) {
      const at = out / 4 + row * layout.weights;
      for (let n = 0; n < width; n++) floats[at + n]! += bias[n]!;
    }
  }

  #store(operands: Operands, layout: Layout, { row, count, first, width, before }: Block): void {
    const { y, width: stride } = operands;
    const { floats } = this.#simd;
    for (let i = 0; i < count; i++) {
      const from = layout.out / 4 + i * layout.weights;
      const to = (row + i) * stride + before + first;
      if (this.#form.accumulate) for (let n = 0; n < width; n++) y[to + n]! += floats[from + n]!;
      else y.set(floats.subarray(from, from + width), to);
    }
  }
}

/** `count` rows from `row` on, by `width` outputs from `first` on of a part that stands behind `before` others in y. */
interface Block {
  readonly row: number;
  readonly count: number;
  readonly part: number;
  readonly first: number;
  readonly width: number;
  readonly before: number;
}
