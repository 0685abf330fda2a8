/**
 * What every device must do: the same requests give the same bytes and the same error codes. A new device
 * joins by one more {@link Subject}.
 */
import { describe } from "bun:test";
import { failureCases } from "./failures.ts";
import type { Subject } from "./harness.ts";
import { heapCases } from "./heaps.ts";
import { kernelCases } from "./kernel-cases.ts";
import { lifetimeCases } from "./lifetime.ts";
import { mappingCases } from "./mapping.ts";
import { moveCases } from "./moves.ts";
import { orderCases } from "./order.ts";
import { productCases } from "./product-cases.ts";
import { sequenceCases } from "./sequences.ts";
import { stepCases } from "./step-cases.ts";
import { streamCases } from "./streams.ts";
import { vendorCases } from "./vendor-products.ts";

/** Declares all cases for one device. */
export function deviceSuite(subject: Subject): void {
  describe(`device ${subject.name}`, () => {
    describe("moves bytes", () => moveCases(subject));
    describe("maps files", () => mappingCases(subject));
    describe("keeps order", () => orderCases(subject));
    if (subject.runsKernels !== false) {
      describe("replays sequences", () => sequenceCases(subject));
      describe("runs kernels", () => kernelCases(subject));
      describe("runs a step's kernels", () => stepCases(subject));
      describe("multiplies and attends", () => productCases(subject));
    }
    if (subject.multiplies) describe("multiplies matrices", () => vendorCases(subject));
    describe("streams files", () => streamCases(subject));
    describe("cuts memory", () => heapCases(subject));
    describe("ends lives", () => lifetimeCases(subject));
    describe("reports failures", () => failureCases(subject));
  });
}
