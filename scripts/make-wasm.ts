/** Makes `src/kernels/wasm/simd.wasm` of the text beside it: `bun scripts/make-wasm.ts`. */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import openWabt from "wabt";

const folder = new URL("../src/kernels/wasm/", import.meta.url);
const place = (name: string) => fileURLToPath(new URL(name, folder));

/** The text's binary form. */
export async function assembleWasm(): Promise<Uint8Array> {
  const wabt = await openWabt();
  const parsed = wabt.parseWat("simd.wat", readFileSync(place("simd.wat"), "utf8"), { simd: true });
  try {
    return parsed.toBinary({}).buffer;
  } finally {
    parsed.destroy();
  }
}

if (import.meta.main) writeFileSync(place("simd.wasm"), await assembleWasm());
