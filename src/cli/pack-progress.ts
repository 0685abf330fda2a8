/** The live bar of packing and verifying: bytes of what is read. */
import { bytesText, timeText } from "./output.ts";
import { TextBar } from "./text-bar.ts";

export class BytesBar extends TextBar {
  /** `text` stands behind the rate: rows, shards. */
  updateBytes(bytes: number, totalBytes: number, text: string): void {
    this.update(bytes, totalBytes, (ms) => {
      const eta = bytes === 0 ? "unknown" : timeText((ms * Math.max(totalBytes - bytes, 0)) / bytes);
      return `${bytesText(bytes)}/${bytesText(totalBytes)} | ${bytesText((bytes * 1000) / ms)}/s | ${text} | ETA ${eta}`;
    });
  }
}
