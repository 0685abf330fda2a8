/** What comes behind the layers when tokens are wanted: the output head, and sampling. */
import type { DeviceBuffer } from "../../device/device.ts";
import type { DispatchCall, RequestList } from "../../device/requests.ts";
import { sampleCall, sampleKernel } from "../../kernels/sample.ts";
import { markSeenCall, markSeenKernel, seenWords } from "../../kernels/seen.ts";
import {
  type SampledRow,
  type SampleParamsView,
  type Sampling,
  sampleParamsView,
  writeSampleParams,
} from "../sampling.ts";
import { RESULTS_AT, ROWS_AT } from "./body.ts";
import type { LlamaConfig } from "./config.ts";
import { SectionedBlock } from "./memory.ts";
import { bucketOf, type Stepper, type Tail } from "./step.ts";
import type { Weight } from "./weights.ts";

export interface SampleTailParts {
  readonly stepper: Stepper;
  readonly config: LlamaConfig;
  readonly head: Weight;
  /** Slots for which tokens can be marked as seen. */
  readonly numSlots: number;
}

/** Its memory is the stepper's, and ends with it. */
export class SampleTail implements Tail {
  /** `[resultRows, vocabulary]`, of the pass that ran last. */
  readonly logits: DeviceBuffer;
  readonly #parts: SampleTailParts;
  readonly #seen: DeviceBuffer;
  readonly #params: SampleParamsView;
  readonly #out: SectionedBlock<"tokens" | "logprobs">;
  readonly #tokens: Int32Array;
  readonly #logprobs: Float32Array;
  /** Whether some row's tokens must be marked. */
  marksSeen = false;

  constructor(parts: SampleTailParts) {
    const { stepper, config, numSlots } = parts;
    const { buffers, resultRows, inputs } = stepper;
    this.#parts = parts;
    this.logits = buffers.create(resultRows * config.vocabSize * 4);
    this.#seen = buffers.create(numSlots * seenWords(config.vocabSize) * 4);
    this.#params = sampleParamsView(inputs.memory, inputs.offsets.results, resultRows);
    this.#out = new SectionedBlock(buffers, { tokens: resultRows * 4, logprobs: resultRows * 4 });
    const { memory, offsets } = this.#out;
    this.#tokens = new Int32Array(memory, offsets.tokens, resultRows);
    this.#logprobs = new Float32Array(memory, offsets.logprobs, resultRows);
  }

  get name(): string {
    return this.marksSeen ? "sample seen" : "sample";
  }

  /** How the token of result `index` of the next pass is chosen. */
  set(index: number, sampling: Sampling, row: SampledRow): void {
    writeSampleParams(this.#params, index, sampling, row);
  }

  /** The token of result `index` of the pass that ran last; -1 where no logit was finite. */
  tokenOf(index: number): number {
    return this.#tokens[index]!;
  }

  logprobOf(index: number): number {
    return this.#logprobs[index]!;
  }

  calls(maxRows: number): DispatchCall[] {
    const { stepper, config, head, numSlots } = this.#parts;
    const { body, inputs, resultRows } = stepper;
    const results = bucketOf(maxRows, resultRows);
    const vocab = config.vocabSize;
    const [info, rows] = [inputs.place("info"), inputs.place("resultRows")];
    const seen = { buffer: this.#seen };
    const mark = markSeenCall(
      body.pipelines.get("seen", () => markSeenKernel),
      {
        tokens: inputs.place("tokens"),
        positions: inputs.place("positions"),
        slots: inputs.place("slots"),
        ...{ seen, info, vocab, numSlots, maxRows, countAt: ROWS_AT },
      },
    );
    return [
      body.finalNorm(results, { rows, inputRows: maxRows }),
      ...body.head(head, { buffer: this.logits }, results),
      ...(this.marksSeen ? [mark] : []),
      sampleCall(body.pipelines.get("sample", sampleKernel), {
        logits: { buffer: this.logits },
        params: inputs.place("results"),
        tokens: this.#out.place("tokens"),
        logprobs: this.#out.place("logprobs"),
        ...{ seen, info, vocab, numSlots, maxRows: results, countAt: RESULTS_AT },
      }),
    ];
  }

  download(list: RequestList): void {
    this.#out.download(list, 0, this.#out.host.byteLength);
  }
}
