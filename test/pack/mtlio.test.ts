/** MTLIO's compressed forms of packed shards: over a Mac's GPU or the stand-in, and what is said where neither is. */
import { describe, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { HeadraceError } from "../../src/errors.ts";
import { checkMtlio, isMtlioCodec, MTLIO_CODECS, prepareMtlio } from "../../src/pack/mtlio.ts";
import { report } from "../cli/process.ts";
import { metalLibrary } from "../conformance/metal-subjects.ts";
import { useTempDir } from "../loader/helpers.ts";

const library = metalLibrary();
const reason = "missing" in library ? ` (left out: ${library.missing})` : "";
const temp = useTempDir();
const PROSE = join(import.meta.dir, "../../datasets/prose");

/** A copy of a dataset, which other tests do not share. */
function shards(): { folder: string; paths: string[]; byteLength: number } {
  const folder = temp("packed");
  mkdirSync(folder, { recursive: true });
  const names = readdirSync(PROSE).filter((name) => name.endsWith(".arrow"));
  for (const name of names) copyFileSync(join(PROSE, name), join(folder, name));
  const paths = names.sort().map((name) => join(folder, name));
  return { folder, paths, byteLength: paths.reduce((sum, path) => sum + statSync(path).size, 0) };
}

test("codecs have their own names", () => {
  expect(MTLIO_CODECS.every(isMtlioCodec)).toBe(true);
  expect(["lz4", "mtlio", "mtlio-zstd"].some(isMtlioCodec)).toBe(false);
});

describe.skipIf("missing" in library)(`over metal${reason}`, () => {
  test.each(MTLIO_CODECS)(
    "%s makes what streams are then read from",
    async (codec) => {
      const { folder, paths, byteLength } = shards();
      const cacheFolder = temp("cache");
      const seen: number[] = [];
      await checkMtlio(codec);
      const made = await prepareMtlio(paths, codec, {
        cacheFolder,
        chunkBytes: 65536,
        onProgress: (done, length) => {
          expect(length).toBe(byteLength);
          seen.push(done);
        },
      });
      expect(made).toMatchObject({ codec, sourceBytes: byteLength });
      expect(made.forms.map(({ source }) => source)).toEqual(paths);
      expect(made.forms.every((form) => form.made && form.path.startsWith(cacheFolder))).toBe(true);
      expect(made.streamBytes).toBe(made.forms.reduce((sum, { path }) => sum + statSync(path).size, 0));
      expect(made.streamBytes).toBeLessThan(byteLength);
      expect(seen).toEqual(seen.toSorted((a, b) => a - b));
      expect(seen.at(-1)).toBe(byteLength);
      const again = await prepareMtlio(paths, codec, { cacheFolder });
      expect(again.forms.some((form) => form.made)).toBe(false);
      const load = (...args: string[]) => report("load", folder, "--digest", ...args);
      const method = codec.slice("mtlio-".length);
      const flags = ["--strategy", "stream", "--stream-codec", method, "--stream-cache", cacheFolder];
      const [host, streamed] = [await load("--device", "host"), await load("--device", "metal", ...flags)];
      expect(streamed.digests).toEqual(host.digests);
      expect(streamed).toMatchObject({ prepared: { codec: method, shards: paths.length, made: 0 } });
    },
    30_000,
  );

  test("stops where it is told to, and keeps what was finished", async () => {
    const { paths } = shards();
    const cacheFolder = temp("cache");
    const abort = new AbortController();
    const options = {
      cacheFolder,
      signal: abort.signal,
      onProgress: (done: number) => {
        if (done >= statSync(paths[0]!).size) abort.abort();
      },
    };
    await expect(prepareMtlio(paths, "mtlio-lz4", options)).rejects.toMatchObject({ code: "CANCELLED" });
    const { forms } = await prepareMtlio(paths, "mtlio-lz4", { cacheFolder });
    expect(forms.map(({ made }) => made)).toEqual([false, ...paths.slice(1).map(() => true)]);
  });

  test("a shard that is not there is named", async () => {
    const path = join(temp("none"), "no.arrow");
    const work = prepareMtlio([path], "mtlio-lz4", { cacheFolder: temp("cache") });
    await expect(work).rejects.toMatchObject({ code: "SOURCE_NOT_FOUND" });
  });
});

describe.skipIf(process.platform === "darwin" || !("missing" in library))("without Metal", () => {
  test.each(MTLIO_CODECS)("%s is refused before any work, with what to do", async (codec) => {
    for (const work of [checkMtlio(codec), prepareMtlio(["/nowhere.arrow"], codec)]) {
      const error = await work.catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(HeadraceError);
      expect(error).toMatchObject({ code: "UNSUPPORTED" });
      expect((error as HeadraceError).message).toContain(`codec ${codec} is made by a Metal device`);
      expect((error as HeadraceError).message).toContain(`--stream-codec ${codec.slice(6)}`);
    }
  });
});
