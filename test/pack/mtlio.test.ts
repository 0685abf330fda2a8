/** MTLIO's compressed forms of packed shards: over a Mac's GPU or the stand-in, and what is said where neither is. */
import { describe, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HeadraceError } from "../../src/errors.ts";
import { checkMtlio, isMtlioCodec, MTLIO_CODECS, prepareMtlio } from "../../src/pack/mtlio.ts";
import { MAIN, ROOT, report, spawn } from "../cli/process.ts";
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

  test("pack makes plain shards and their forms, which load then streams from", async () => {
    const folder = temp("from-jsonl");
    mkdirSync(folder, { recursive: true });
    const lines = Array.from({ length: 5000 }, (_, id) =>
      JSON.stringify({ id, text: `row ${id} `.repeat(9) }),
    );
    writeFileSync(join(folder, "rows.jsonl"), `${lines.join("\n")}\n`);
    const cache = join(folder, "cache");
    const run = async (...args: string[]) => {
      const { ended } = spawn([process.execPath, MAIN, ...args, "--json"], ROOT, { XDG_CACHE_HOME: cache });
      const { code, out, err } = await ended;
      expect({ code, err }).toEqual({ code: 0, err: "" });
      return JSON.parse(out);
    };
    const source = join(folder, "rows.jsonl");
    const [plain, packed] = [join(folder, "plain"), join(folder, "packed")];
    await run("pack", source, "--out", plain);
    await run("pack", source, "--out", packed, "--codec", "mtlio-lz4");
    expect(readFileSync(join(packed, "rows-00000.arrow"))).toEqual(
      readFileSync(join(plain, "rows-00000.arrow")),
    );
    expect(
      readdirSync(join(cache, "headrace", "streams")).filter((name) => name.endsWith(".lz4")),
    ).toHaveLength(1);
    const flags = ["--device", "metal", "--strategy", "stream", "--stream-codec", "lz4", "--digest"];
    const [host, streamed] = [
      await run("load", plain, "--device", "host", "--digest"),
      await run("load", packed, ...flags),
    ];
    expect(streamed.digests).toEqual(host.digests);
    expect(streamed).toMatchObject({ prepared: { codec: "lz4", shards: 1, made: 0 } });
  }, 30_000);

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
