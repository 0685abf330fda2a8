/** Rows for jobs of tests, and what comes of them. */
import {
  type Engine,
  type GenerateOptions,
  generate,
  HeadraceError,
  type InferOutput,
  type InferRequest,
} from "../../../src/index.ts";

/** A row whose prompt is what {@link FakeEngine} expects of no row in particular. */
export function rowOf(
  row: number,
  parts: Partial<InferRequest> & { promptTokens?: number } = {},
): InferRequest {
  const { promptTokens = 3, ...rest } = parts;
  return {
    row,
    prompt: Int32Array.from({ length: promptTokens }, (_, i) => row + i),
    maxNewTokens: 4,
    ...rest,
  };
}

/** `rows` one after the other, each after a turn of the event loop where `slow`. */
export async function* sourceOf(rows: Iterable<InferRequest>, slow = false): AsyncGenerator<InferRequest> {
  for (const row of rows) {
    if (slow) await new Promise(setImmediate);
    yield row;
  }
}

/** All outputs of a job, in the order in which they came. */
export async function outputsOf(
  rows: Iterable<InferRequest> | AsyncIterable<InferRequest>,
  engine: Engine,
  options?: GenerateOptions,
): Promise<InferOutput[]> {
  const source = Symbol.asyncIterator in rows ? rows : sourceOf(rows);
  return Array.fromAsync(generate(source, engine, options));
}

/** What a job throws, and the outputs before it. */
export async function failureOfJob(
  rows: AsyncIterable<InferRequest>,
  engine: Engine,
  options?: GenerateOptions,
): Promise<{ error: unknown; outputs: InferOutput[] }> {
  const outputs: InferOutput[] = [];
  try {
    for await (const output of generate(rows, engine, options)) outputs.push(output);
  } catch (error) {
    return { error, outputs };
  }
  throw new Error("the job threw nothing");
}

/** The code of a job's failure. */
export function codeOf(error: unknown): string {
  if (error instanceof HeadraceError) return error.code;
  throw error;
}

/** Rows from 0. */
export function rows(
  count: number,
  parts: (row: number) => Parameters<typeof rowOf>[1] = () => ({}),
): InferRequest[] {
  return Array.from({ length: count }, (_, row) => rowOf(row, parts(row)));
}

/** A source that counts what was asked of it. */
export function counted(count: number, beforeRow: (row: number) => unknown = () => undefined) {
  const seen = { pulled: 0, returned: 0 };
  async function* pull() {
    try {
      for (let row = 0; row < count; row++) {
        await beforeRow(row);
        seen.pulled++;
        yield rowOf(row);
      }
    } finally {
      seen.returned++;
    }
  }
  return { source: pull(), seen };
}

/** Rows from 0, then nothing for ever. */
export async function* stuck(count: number): AsyncGenerator<InferRequest> {
  yield* rows(count);
  await new Promise(() => {});
}
