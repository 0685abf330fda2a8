/** A thread that parses pieces of text, one after another. */
import { CsvLines } from "./csv-lines.ts";
import { JsonLines } from "./json-lines.ts";
import type { ParseResult, ParserSetup, ParseTask } from "./parse-pool.ts";

declare const self: Worker;

let parser: JsonLines | CsvLines | undefined;

self.onmessage = ({ data }: MessageEvent<ParserSetup | ParseTask>) => {
  if ("format" in data) {
    parser =
      data.format === "jsonl"
        ? new JsonLines(data.fields, data.paths, data.options)
        : new CsvLines(data.fields, data.options);
    return;
  }
  const { buffer, start, end, spares } = data;
  if (spares !== undefined) parser!.reuse(spares);
  const result = parser!.parse(Buffer.from(buffer).subarray(start), end - start);
  const transfer: ArrayBuffer[] = [buffer];
  for (const { values, offsets, validity } of result.columns) {
    for (const one of [values, offsets, validity])
      if (one !== undefined) transfer.push(one.buffer as ArrayBuffer);
  }
  const answer: ParseResult = { ...result, buffer };
  self.postMessage(answer, transfer);
};
