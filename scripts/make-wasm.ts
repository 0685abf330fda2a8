/** Makes the modules for WebAssembly, each of the text beside it: `bun scripts/make-wasm.ts`. */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import openWabt from "wabt";

/** Without their endings. */
export const WASM_MODULES = ["src/kernels/wasm/simd", "src/codec/planes"] as const;

const place = (name: string) => fileURLToPath(new URL(`../${name}`, import.meta.url));

/** The binary form of a module's text. */
export async function assembleWasm(module: (typeof WASM_MODULES)[number]): Promise<Uint8Array> {
  const wabt = await openWabt();
  const parsed = wabt.parseWat(`${module}.wat`, readFileSync(place(`${module}.wat`), "utf8"), { simd: true });
  try {
    return parsed.toBinary({}).buffer;
  } finally {
    parsed.destroy();
  }
}

if (import.meta.main) {
  for (const module of WASM_MODULES) writeFileSync(place(`${module}.wasm`), await assembleWasm(module));
}
