/** A Worker that turns texts into token ids: first the settings come, then texts, each of which is answered. */
import { RowTokenizer, type Texts, type TokenizeSettings } from "./tokenize-rows.ts";

declare const self: Worker;

let tokenizer: RowTokenizer | undefined;

self.onmessage = ({ data }: MessageEvent<TokenizeSettings | Texts>) => {
  if ("tokenizer" in data) {
    tokenizer = new RowTokenizer(data);
    return;
  }
  const { ids, counts } = tokenizer!.run(data);
  const copy = ids.slice();
  self.postMessage({ ids: copy, counts }, [copy.buffer, counts.buffer]);
};
