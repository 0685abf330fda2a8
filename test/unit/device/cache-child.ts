/** A process that begins to make a form, says so, and never ends: `bun cache-child.ts SOURCE CODEC FOLDER`. */
import { ensureCached } from "../../../src/device/metal/cache.ts";

const [path, codec, cacheFolder] = process.argv.slice(2) as [string, string, string];
setInterval(() => {}, 1000);
await ensureCached({ path, codec, cacheFolder }, () => {
  console.log("making");
  return new Promise(() => {});
});
