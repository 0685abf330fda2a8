/** The Worker that decodes one compressed file from its start to its end. */
import { type ErrorCode, HeadraceError } from "../errors.ts";
import { decodeFile, type WholeWork } from "./whole-file.ts";

declare const self: Worker;

/** The one answer. A failure that is not the library's own has the system's name for it. */
export type WholeAnswer =
  | { readonly byteLength: number }
  | { readonly code: ErrorCode; readonly message: string }
  | { readonly system: string; readonly message: string };

self.onmessage = async ({ data }: MessageEvent<WholeWork>) => {
  self.postMessage(await answer(data));
};

async function answer(work: WholeWork): Promise<WholeAnswer> {
  try {
    return { byteLength: await decodeFile(work) };
  } catch (error) {
    if (error instanceof HeadraceError) return { code: error.code, message: error.message };
    const { code, message } = error as { code?: string; message?: string };
    return { system: code ?? "unknown", message: String(message ?? error) };
  }
}
