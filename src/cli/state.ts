/** Saved states: how `--resume` reads one, and what it says where nothing is left to do. */
import { readFileSync, statSync } from "node:fs";
import { HeadraceError, type Loader } from "../index.ts";
import { amountText, printable } from "./output.ts";

/** Bytes of the largest file that is taken for a state. */
const MAX_STATE_BYTES = 64 * 1024;

/** The JSON of the file; what it holds is the loader's to check. Throws `SOURCE_NOT_FOUND`, `SOURCE_UNREADABLE` and
 * `STATE_MISMATCH`. */
export function readState(path: string): unknown {
  let text: string;
  try {
    const { size } = statSync(path);
    if (size > MAX_STATE_BYTES) {
      throw new HeadraceError("STATE_MISMATCH", `${path}: not a saved state: it has ${size} bytes`);
    }
    text = readFileSync(path, "utf8");
  } catch (cause) {
    if (cause instanceof HeadraceError) throw cause;
    const { code } = cause as { code?: string };
    if (code === "ENOENT") {
      throw new HeadraceError("SOURCE_NOT_FOUND", `${path}: there is no such state file`, { cause });
    }
    throw new HeadraceError("SOURCE_UNREADABLE", `${path}: the state cannot be read (${code})`, { cause });
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    const why = (cause as Error).message;
    throw new HeadraceError("STATE_MISMATCH", `${path}: not a saved state: ${why}`, { cause });
  }
}

/** What to say where `loader`, resumed from `path`, stands at the end of its epochs already; undefined where it does
 * not. */
export function atEndText(loader: Loader, path: string, epochs: number): string | undefined {
  const { epoch, position } = loader.state();
  const over = position > 0 && position >= loader.samplesPerEpoch;
  const done = over ? epoch + 1 : epoch;
  if (done === 0 || done < epochs) return undefined;
  const asked = epochs === 1 ? "--epochs is 1" : `--epochs asks for ${epochs}`;
  return `${printable(path)} stands at the end of ${amountText(done, "epoch")}, and ${asked}: nothing is left to load; go on with --epochs ${done + 1}, or begin anew without --resume`;
}
