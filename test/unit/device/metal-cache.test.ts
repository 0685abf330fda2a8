import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type CacheKey,
  type Compress,
  cachePlace,
  checkCached,
  createCached,
  ensureCached,
  findCached,
  userCacheFolder,
} from "../../../src/device/metal/cache.ts";

let folder: string;
let source: string;
let key: CacheKey;
const TEXT = "shard bytes ".repeat(1000);

/** Writes something shorter, and counts. */
function compressor(): { compress: Compress; readonly calls: string[] } {
  const calls: string[] = [];
  const compress: Compress = async (from, to, codec, chunkBytes) => {
    calls.push(`${codec} ${chunkBytes}`);
    const bytes = readFileSync(from);
    writeFileSync(to, Bun.deflateSync(bytes));
    return bytes.length;
  };
  return { compress, calls };
}

const { compress } = compressor();

beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), "headrace-cache-")));
  source = join(folder, "shard 1.safetensors");
  writeFileSync(source, TEXT);
  key = { path: source, codec: "lz4", cacheFolder: join(folder, "cache/streams") };
});
afterEach(() => rmSync(folder, { recursive: true }));

function reason(key: CacheKey): string {
  const found = findCached(key);
  return "reason" in found ? found.reason : "valid";
}

function cacheFiles(): string[] {
  return readdirSync(join(folder, "cache/streams"));
}

function sidecar(): Record<string, unknown> {
  return JSON.parse(readFileSync(cachePlace(key).sidecarPath, "utf8"));
}

test("what was made is found, with its sidecar", async () => {
  expect(reason(key)).toBe("absent");
  const made = await createCached(key, compress, { createdBy: "headrace 9.9.9" });
  expect(made.byteLength).toBe(TEXT.length);
  expect(findCached(key)).toEqual(made);
  expect(await checkCached(key)).toEqual(made);
  expect(sidecar()).toMatchObject({
    version: 1,
    source,
    byteLength: TEXT.length,
    sha256: new Bun.CryptoHasher("sha256").update(TEXT).digest("hex"),
    codec: "lz4",
    chunkBytes: 65536,
    createdBy: "headrace 9.9.9",
  });
  expect(cacheFiles()).toHaveLength(2);
  expect(readdirSync(folder).sort()).toEqual(["cache", "shard 1.safetensors"]);
});

test("codec, chunk size and path each have a form of their own; a link has its target's", async () => {
  await createCached(key, compress);
  expect(reason({ ...key, codec: "zlib" })).toBe("absent");
  expect(reason({ ...key, chunkBytes: 4096 })).toBe("absent");
  const copy = join(folder, "copy");
  copyFileSync(source, copy);
  expect(reason({ ...key, path: copy })).toBe("absent");
  const link = join(folder, "link");
  symlinkSync(source, link);
  expect(reason({ ...key, path: link })).toBe("valid");
});

test("another length is stale, whatever the time", async () => {
  await createCached(key, compress);
  const { mtimeMs } = sidecar();
  writeFileSync(source, `${TEXT}x`);
  utimesSync(source, Number(mtimeMs) / 1000, Number(mtimeMs) / 1000);
  expect(reason(key)).toBe("length");
  expect(await checkCached(key)).toMatchObject({ reason: "length" });
});

test("another time asks for the digest, and the same bytes are taken again", async () => {
  const made = await createCached(key, compress);
  utimesSync(source, 1000, 1000);
  expect(reason(key)).toBe("mtime");
  expect(await checkCached(key)).toEqual(made);
  expect(reason(key)).toBe("valid");
  expect(sidecar().mtimeMs).toBe(1_000_000);
});

test("other bytes of the same length are stale", async () => {
  await createCached(key, compress);
  writeFileSync(source, TEXT.toUpperCase());
  utimesSync(source, 1000, 1000);
  expect(await checkCached(key)).toMatchObject({ reason: "digest" });
  const { compress: again, calls } = compressor();
  await ensureCached(key, again);
  expect(calls).toEqual(["lz4 65536"]);
  expect(reason(key)).toBe("valid");
  await ensureCached(key, again);
  expect(calls).toHaveLength(1);
});

test("a damaged cache is stale and made anew", async () => {
  const place = cachePlace(key);
  const damages: [string, () => void][] = [
    ["absent", () => rmSync(place.sidecarPath)],
    ["absent", () => rmSync(place.compressedPath)],
    ["unreadable", () => truncateSync(place.compressedPath, 5)],
    ["unreadable", () => writeFileSync(place.sidecarPath, "{")],
    ["unreadable", () => writeFileSync(place.sidecarPath, "x".repeat(70_000))],
    ["unreadable", () => writeFileSync(place.sidecarPath, JSON.stringify({ ...sidecar(), version: 2 }))],
    ["unreadable", () => writeFileSync(place.sidecarPath, JSON.stringify({ ...sidecar(), sha256: "12" }))],
    ["other", () => writeFileSync(place.sidecarPath, JSON.stringify({ ...sidecar(), source: "/else" }))],
    ["other", () => writeFileSync(place.sidecarPath, JSON.stringify({ ...sidecar(), codec: "zlib" }))],
  ];
  for (const [expected, damage] of damages) {
    await ensureCached(key, compress);
    expect(reason(key)).toBe("valid");
    damage();
    expect(reason(key)).toBe(expected);
  }
});

test("a compressor's failure comes through and leaves no form", async () => {
  await createCached(key, compress);
  utimesSync(source, 1000, 1000);
  const failing: Compress = async (_from, to) => {
    writeFileSync(to, "half");
    throw new Error("disk full");
  };
  await expect(createCached(key, failing)).rejects.toThrow("disk full");
  expect(cacheFiles()).toEqual([]);
  expect(reason(key)).toBe("absent");
});

test("a file that changes while it is compressed is told and leaves no form", async () => {
  const changing: Compress = async (from, to, codec, chunkBytes) => {
    const byteLength = await compress(from, to, codec, chunkBytes);
    utimesSync(from, 1000, 1000);
    return byteLength;
  };
  await expect(createCached(key, changing)).rejects.toMatchObject({ code: "FILE_CHANGED" });
  const short: Compress = async (from, to, codec, chunkBytes) =>
    (await compress(from, to, codec, chunkBytes)) - 1;
  await expect(createCached(key, short)).rejects.toMatchObject({ code: "FILE_CHANGED" });
  expect(cacheFiles()).toEqual([]);
});

test("a signal cancels before and after compressing", async () => {
  const { compress: counted, calls } = compressor();
  const early = { signal: AbortSignal.abort() };
  await expect(createCached(key, counted, early)).rejects.toMatchObject({ code: "CANCELLED" });
  expect(calls).toEqual([]);
  const controller = new AbortController();
  const aborting: Compress = (...all) => {
    controller.abort();
    return counted(...all);
  };
  const late = createCached(key, aborting, { signal: controller.signal });
  await expect(late).rejects.toMatchObject({ code: "CANCELLED" });
  expect(cacheFiles()).toEqual([]);
});

test("an old sidecar never stands beside a new form", async () => {
  await createCached(key, compress);
  const place = cachePlace(key);
  const looking: Compress = async (from, to, codec, chunkBytes) => {
    expect(existsSync(place.sidecarPath)).toBe(false);
    return compress(from, to, codec, chunkBytes);
  };
  await createCached(key, looking);
  expect(reason(key)).toBe("valid");
});

test("missing files and folders that cannot be made are errors with a code", async () => {
  const missing = { ...key, path: join(folder, "missing") };
  expect(() => findCached(missing)).toThrow(expect.objectContaining({ code: "SOURCE_NOT_FOUND" }));
  const blocked = { ...key, cacheFolder: join(source, "cache") };
  await expect(createCached(blocked, compress)).rejects.toMatchObject({ code: expect.any(String) });
  renameSync(source, `${source}.away`);
  await expect(checkCached(key)).rejects.toMatchObject({ code: "SOURCE_NOT_FOUND" });
});

test("the user's cache folder follows the system", () => {
  expect(userCacheFolder("darwin", {}, "/Users/a")).toBe("/Users/a/Library/Caches/headrace/streams");
  expect(userCacheFolder("linux", {}, "/home/a")).toBe("/home/a/.cache/headrace/streams");
  expect(userCacheFolder("linux", { XDG_CACHE_HOME: "/x" }, "/home/a")).toBe("/x/headrace/streams");
  expect(userCacheFolder("linux", { XDG_CACHE_HOME: "relative" }, "/home/a")).toBe(
    "/home/a/.cache/headrace/streams",
  );
});
