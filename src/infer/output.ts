/** What an inference job gives for each row. */
import type { DeviceVector } from "./engine.ts";

/** Why a row ended: it came to a stop token or text; to its bound on tokens or the end of the context; or it failed. */
export type Finish = "stop" | "length" | "error";

/** One row's outcome. Each row that a job took in has exactly one. */
export interface InferOutput {
  /** {@link InferRequest.row}. */
  readonly row: number;
  /** What the engine made, without a stop token, and without tokens whose text reaches into a stop text or past it;
   * empty for failed rows and for engines that know no tokens. */
  readonly tokens: Int32Array;
  /** One for each of `tokens`, where they were asked for. */
  readonly logprobs?: Float32Array | undefined;
  /** Where the engine gave it, or the job has a `decode`: up to the stop text, which may lie within a token. */
  readonly text?: string | undefined;
  readonly finish: Finish;
  /** Why the row failed, one line for a person; with `error` alone. */
  readonly error?: string | undefined;
  /** From engines that embed. The receiver has to `release` it. */
  readonly embedding?: DeviceVector | undefined;
  readonly promptTokens: number;
  /** Of `tokens`, or as an engine counted that knows no tokens. */
  readonly outputTokens: number;
  /** Times that the row was begun: 1, and one more for each retry; 0 where it could not be begun at all. */
  readonly attempts: number;
}
