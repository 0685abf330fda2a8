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
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CODEC_NONE, Status } from "../../../src/device/metal/abi.ts";
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
import { MetalContext } from "../../../src/device/metal/context.ts";
import { openMetalFile } from "../../../src/device/metal/file.ts";
import { CODECS, encodeOptions } from "../../../src/device/metal/options.ts";
import { HeadraceError } from "../../../src/errors.ts";

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
    version: 2,
    source,
    byteLength: TEXT.length,
    sha256: new Bun.CryptoHasher("sha256").update(TEXT).digest("hex"),
    codec: "lz4",
    chunkBytes: 65536,
    createdBy: "headrace 9.9.9",
  });
  const { size: byteLength, mtimeMs, ctimeMs } = statSync(made.compressedPath);
  const sha256 = new Bun.CryptoHasher("sha256").update(readFileSync(made.compressedPath)).digest("hex");
  expect(sidecar().compressed).toEqual({ byteLength, mtimeMs, ctimeMs, sha256 });
  expect(sidecar().ctimeMs).toBe(statSync(source).ctimeMs);
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
  expect(reason(key)).toBe("times");
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
    ["unreadable", () => writeFileSync(place.sidecarPath, JSON.stringify({ ...sidecar(), version: 1 }))],
    ["unreadable", () => writeFileSync(place.sidecarPath, JSON.stringify({ ...sidecar(), version: 3 }))],
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

test("missing files are errors with a code", async () => {
  const missing = { ...key, path: join(folder, "missing") };
  expect(() => findCached(missing)).toThrow(expect.objectContaining({ code: "SOURCE_NOT_FOUND" }));
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

/** Writes over a file and sets its mtime back, as `cp -p` and some tools do. */
function rewrite(path: string, bytes: Uint8Array | string): void {
  const { atime, mtime } = statSync(path);
  writeFileSync(path, bytes);
  utimesSync(path, atime, mtime);
}

test("a form that was changed after it was made is not used, and made anew", async () => {
  const { compressedPath } = await createCached(key, compress);
  const good = readFileSync(compressedPath);
  const bad = good.map((byte, i) => (i === 10 ? byte ^ 1 : byte));
  for (const change of [writeFileSync, rewrite] as ((path: string, bytes: Uint8Array) => void)[]) {
    change(compressedPath, bad);
    expect(reason(key)).toBe("times");
    expect(await checkCached(key)).toMatchObject({
      reason: "digest",
      message: expect.stringContaining(compressedPath),
    });
    const { compress: again, calls } = compressor();
    await ensureCached(key, again);
    expect(calls).toHaveLength(1);
    expect(readFileSync(compressedPath)).toEqual(good);
    expect(reason(key)).toBe("valid");
  }
});

test("a form of which only the times changed is taken again", async () => {
  const made = await createCached(key, compress);
  utimesSync(made.compressedPath, 1000, 1000);
  utimesSync(source, 2000, 2000);
  expect(reason(key)).toBe("times");
  expect(await checkCached(key)).toEqual(made);
  expect(reason(key)).toBe("valid");
  expect(sidecar()).toMatchObject({ mtimeMs: 2_000_000, compressed: { mtimeMs: 1_000_000 } });
});

test("a source that was rewritten, its mtime set back, is stale", async () => {
  utimesSync(source, 1000, 1000);
  await createCached(key, compress);
  rewrite(source, TEXT.toUpperCase());
  expect(statSync(source).mtimeMs).toBe(1_000_000);
  expect(reason(key)).toBe("times");
  expect(await checkCached(key)).toMatchObject({ reason: "digest" });
});

test("a bad form is named beside its source, and what to do", () => {
  let opened = 0;
  const symbols = {
    hr_file_open: (_device: number, _path: Uint8Array, _flags: number, codec: number, out: Uint32Array) => {
      out[0] = ++opened;
      return codec === CODEC_NONE ? Status.OK : status;
    },
    hr_close: () => {},
  };
  let status: number = Status.CORRUPT;
  const context = new MetalContext(symbols as never, 99, "fake");
  const compressed = { path: "/caches/form.lz4", codec: CODECS.lz4 };
  const openStream = () => openMetalFile(context, source, "stream", { noCache: false, compressed });
  const failure = thrownBy(openStream);
  expect(failure.code).toBe("BAD_STREAM");
  for (const part of [source, compressed.path, "delete it"]) expect(failure.message).toContain(part);
  status = Status.OK;
  using file = openStream();
  expect(file.path).toBe(source);
  for (const part of [source, compressed.path, "delete it"]) expect(file.requestName).toContain(part);
});

test("what a killed process left is swept after a day, and nothing else", async () => {
  await createCached(key, compress);
  const at = (name: string) => join(folder, "cache/streams", name);
  const uuid = "0B3B4C58-7B3B-4C1D-9A56-9F3C0E9E1A2B";
  const names = [`.old.lz4.${uuid}.partial`, `.new.lz4.${uuid}.partial`, ".film.partial", `old.${uuid}`];
  for (const name of names) writeFileSync(at(name), "half");
  const now = Date.now() / 1000;
  for (const name of names) utimesSync(at(name), now, now - (name.startsWith(".new") ? 23 : 25) * 3600);
  await createCached(key, compress);
  expect(names.filter((name) => existsSync(at(name)))).toEqual(names.slice(1));
  expect(cacheFiles()).toHaveLength(5);
});

test("a cache folder that cannot be used is told as such, not as the source", async () => {
  writeFileSync(join(folder, "file"), "");
  for (const cacheFolder of [
    join(folder, "file/cache"),
    join(folder, "file"),
    "/proc/headrace",
    "/proc/self",
  ]) {
    const { compress: counted, calls } = compressor();
    if (cacheFolder.startsWith("/proc") && process.platform !== "linux") continue;
    const failure = await createCached({ ...key, cacheFolder }, counted).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "IO_ERROR" });
    const { message } = failure as Error;
    expect(message).toStartWith(`the stream cache ${cacheFolder}: creating `);
    expect(message).toMatch(/: E[A-Z]+; name another folder \(cacheFolder, --stream-cache\)$/);
    expect(calls).toEqual([]);
  }
});

test("a partial file that the library cannot make is a failure of the cache folder, too", async () => {
  const { folder: cacheFolder } = cachePlace(key);
  const failing =
    (code: "SOURCE_UNREADABLE" | "DISK_FULL", text: string): Compress =>
    async () => {
      throw new HeadraceError(code, text);
    };
  const refused = createCached(
    key,
    failing("SOURCE_UNREADABLE", `${source}: creating ${cacheFolder}/.a.partial: EACCES`),
  );
  await expect(refused).rejects.toMatchObject({
    code: "IO_ERROR",
    message: expect.stringMatching(/^the stream cache .*EACCES; name another folder/),
  });
  const full = createCached(
    key,
    failing("DISK_FULL", `${source}: creating ${cacheFolder}/.a.partial: ENOSPC`),
  );
  await expect(full).rejects.toMatchObject({ code: "DISK_FULL" });
  const unread = createCached(key, failing("SOURCE_UNREADABLE", `${source}: reading it: EACCES`));
  await expect(unread).rejects.toMatchObject({ code: "SOURCE_UNREADABLE" });
});

test("an empty cache folder is no option", () => {
  expect(thrownBy(() => encodeOptions({ stream: { cacheFolder: "" } })).code).toBe("BAD_OPTION");
  encodeOptions({ stream: { cacheFolder: "." } });
});

function thrownBy(work: () => unknown): HeadraceError {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(HeadraceError);
    return error as HeadraceError;
  }
  throw new Error("nothing was thrown");
}
