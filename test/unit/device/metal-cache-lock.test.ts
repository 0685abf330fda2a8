/** Several who want the same compressed form at the same time. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type CacheKey,
  type Compress,
  createCached,
  ensureCached,
  findCached,
} from "../../../src/device/metal/cache.ts";
import { HeadraceError } from "../../../src/errors.ts";

let folder: string;
let source: string;
let key: CacheKey;
const TEXT = "shard bytes ".repeat(1000);

beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), "headrace-cache-")));
  source = join(folder, "shard 1.safetensors");
  writeFileSync(source, TEXT);
  key = { path: source, codec: "lz4", cacheFolder: join(folder, "cache/streams") };
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A compressor that takes a moment, and fails while `failing` says so. */
function slow(failing: () => boolean = () => false) {
  const calls: string[] = [];
  const compress: Compress = async (from, to, codec) => {
    calls.push(codec);
    await Bun.sleep(30);
    const bytes = readFileSync(from);
    writeFileSync(to, Bun.deflateSync(bytes));
    await Bun.sleep(30);
    if (failing()) throw new HeadraceError("DISK_FULL", "no room");
    return bytes.length;
  };
  return { compress, calls };
}

test("of those that want a form at the same time one makes it, and the others take it", async () => {
  const { compress: late, calls } = slow();
  const all = await Promise.all([1, 2, 3].map(() => ensureCached(key, late)));
  expect(all.map(({ made }) => made).sort()).toEqual([false, false, true]);
  expect(calls).toHaveLength(1);
  expect(findCached(key)).not.toHaveProperty("reason");
  expect(readdirSync(key.cacheFolder!)).toHaveLength(2);
  // Another form is nobody's to wait for.
  const others = [{ codec: "zlib" }, { codec: "lzma" }].map((other) =>
    ensureCached({ ...key, ...other }, late),
  );
  expect((await Promise.all(others)).map(({ made }) => made)).toEqual([true, true]);
});

test("where the one that makes a form fails, the next makes it", async () => {
  let failures = 1;
  const { compress: late, calls } = slow(() => failures-- > 0);
  const all = await Promise.allSettled([ensureCached(key, late), ensureCached(key, late)]);
  expect(all.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  expect(calls).toHaveLength(2);
  expect(findCached(key)).not.toHaveProperty("reason");
  expect(readdirSync(key.cacheFolder!)).toHaveLength(2);
});

test("who waits for another process can be cancelled, and goes on when that is killed", async () => {
  const script = join(import.meta.dir, "cache-child.ts");
  const args = [source, key.codec, key.cacheFolder!];
  const child = Bun.spawn([process.execPath, script, ...args], { stdout: "pipe", stderr: "inherit" });
  try {
    const { value } = await child.stdout.getReader().read();
    expect(new TextDecoder().decode(value)).toBe("making\n");
    const { compress: counted, calls } = slow();
    const signal = AbortSignal.timeout(120);
    await expect(ensureCached(key, counted, { signal })).rejects.toMatchObject({ code: "CANCELLED" });
    expect(calls).toEqual([]);
    const waiting = ensureCached(key, counted);
    await Bun.sleep(120);
    expect(calls).toEqual([]);
    child.kill("SIGKILL");
    expect(await waiting).toMatchObject({ made: true });
    expect(readdirSync(key.cacheFolder!)).toHaveLength(2);
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
}, 20_000);

test("without a lock, two that make a form at the same time leave a whole one or none", async () => {
  for (let round = 0; round < 5; round++) {
    let failures = round % 2;
    const { compress: late } = slow(() => failures-- > 0);
    const makers = [0, 10 * round].map(async (ms) => {
      await Bun.sleep(ms);
      return createCached(key, late);
    });
    await Promise.allSettled(makers);
    const { compressedPath, byteLength } = await ensureCached(key, slow().compress);
    expect(byteLength).toBe(TEXT.length);
    expect(Buffer.from(Bun.inflateSync(readFileSync(compressedPath))).toString()).toBe(TEXT);
    expect(findCached(key)).not.toHaveProperty("reason");
    rmSync(key.cacheFolder!, { recursive: true });
  }
});
