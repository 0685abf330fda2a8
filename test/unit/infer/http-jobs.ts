/** Jobs over inference servers of tests. */
import { type HttpEngineOptions, type InferRequest, openHttpEngine } from "../../../src/index.ts";
import { codeOf, failureOfJob, outputsOf, sourceOf } from "./rows.ts";
import { TestServer } from "./server.ts";

/** What no message may hold. */
export const KEY = "sk-very-secret-0123456789";

/** An engine over `server` that is soon tired of it. */
export function openOn(server: TestServer, options: Partial<HttpEngineOptions> = {}) {
  return openHttpEngine({ url: server.url, model: "m", slots: 4, retries: 2, backoffMs: 10, ...options });
}

export function textRow(row: number, parts: Partial<InferRequest> = {}): InferRequest {
  return { row, prompt: new Int32Array(0), text: `prompt ${row}`, maxNewTokens: 8, ...parts };
}

/** One row's output, by a server that answers so. */
export async function one(
  answer: ConstructorParameters<typeof TestServer>[0],
  parts: Partial<InferRequest> = {},
  options: Partial<HttpEngineOptions> = {},
) {
  await using server = new TestServer(answer);
  const engine = await openOn(server, options);
  const [output] = await outputsOf([textRow(0, parts)], engine);
  await engine.close();
  return { output: output!, asked: server.asked };
}

/** What ends a job whose server answers so. */
export async function failure(
  answer: ConstructorParameters<typeof TestServer>[0],
  options: Partial<HttpEngineOptions> = {},
  rows = [textRow(0)],
) {
  await using server = new TestServer(answer);
  const engine = await openOn(server, options);
  const { error, outputs } = await failureOfJob(sourceOf(rows), engine);
  await engine.close();
  return { code: codeOf(error), message: (error as Error).message, outputs, asked: server.asked };
}
