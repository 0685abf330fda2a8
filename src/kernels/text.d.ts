/** Headers are imported as text. */
declare module "*.h" {
  const text: string;
  export default text;
}

/** Modules for WebAssembly are imported by their path. */
declare module "*.wasm" {
  const path: string;
  export default path;
}
