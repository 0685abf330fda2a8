/** `--stream-codec` and its neighbours. What the device makes of them is its own tests' matter. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { preparedText, prepareStreams } from "../../src/cli/prepare.ts";
import { type Device, openDevice, type PrepareStreamOptions } from "../../src/index.ts";
import { double } from "../loader/doubles.ts";
import { DATASETS, headrace, report } from "./process.ts";

const PROSE = join(DATASETS, "prose");
const never = new AbortController().signal;

/** A device that compresses to a third, and has made the second shard before. */
function streaming(host: Device, prepare: (path: string, options: PrepareStreamOptions) => void = () => {}) {
  const { device } = double(host, { capabilities: { canStream: true, codecs: ["lz4", "zlib"] } });
  const asked: string[] = [];
  device.prepareStream = async (path, options = {}) => {
    prepare(path, options);
    asked.push(path);
    const { size } = Bun.file(path);
    options.onProgress?.(size / 2, size);
    options.onProgress?.(size, size);
    return { path: `${path}.lz4`, byteLength: size / 3, codec: "lz4", made: asked.length !== 2 };
  };
  return { device, asked };
}

describe("prepareStreams", () => {
  test("prepares every shard, and says what it made", async () => {
    await using host = openDevice("host");
    const { device, asked } = streaming(host);
    const prepared = await prepareStreams(device, PROSE, "lz4", never);
    expect(asked.map((path) => path.slice(PROSE.length + 1))).toHaveLength(4);
    expect(prepared).toMatchObject({ codec: "lz4", shards: 4, made: 3 });
    expect(prepared.streamBytes * 3).toBeCloseTo(prepared.sourceBytes, 3);
    expect(preparedText(prepared)).toMatch(/^lz4, 1\.\d\d MB \(3\.00 to 1\), 3 of 4 shards made now$/);
    expect(host.openResources).toBe(0);
  });

  test("refuses a device that cannot, and a codec that it does not know", async () => {
    await using host = openDevice("host");
    const { device, asked } = streaming(host);
    await expect(prepareStreams(host, PROSE, "lz4", never)).rejects.toMatchObject({
      code: "UNSUPPORTED",
      message: expect.stringContaining("device host does not stream"),
    });
    await expect(prepareStreams(device, PROSE, "lzma", never)).rejects.toMatchObject({
      code: "UNSUPPORTED",
      message: "--stream-codec lzma: device host decodes lz4, zlib",
    });
    expect(asked).toEqual([]);
  });

  test("a signal ends it between two shards, and within one", async () => {
    await using host = openDevice("host");
    for (const [shard, within, text] of [
      ["00000", true, "cancelled before any of 4 shards had been prepared"],
      ["00000", false, "cancelled after 1 of 4 shards had been prepared, which stays"],
      ["00001", true, "cancelled after 1 of 4 shards had been prepared, which stays"],
      ["00001", false, "cancelled after 2 of 4 shards had been prepared, which stay"],
    ] as const) {
      const abort = new AbortController();
      const { device } = streaming(host, (path) => {
        if (!path.includes(shard)) return;
        abort.abort("SIGINT");
        if (within) throw new Error("the device's own word for it");
      });
      await expect(prepareStreams(device, PROSE, "lz4", abort.signal)).rejects.toMatchObject({
        code: "CANCELLED",
        message: text,
      });
    }
  });

  test("a failure comes as it is", async () => {
    await using host = openDevice("host");
    const { device } = streaming(host, () => {
      throw new Error("no space");
    });
    await expect(prepareStreams(device, PROSE, "lz4", never)).rejects.toThrow("no space");
  });
});

describe("load", () => {
  test("--strategy stream on a device without it says what to do", async () => {
    const { code, out, err } = await headrace("load", "--device", "host", "--strategy", "stream");
    expect({ code, out }).toEqual({ code: 1, out: "" });
    expect(err).toMatch(
      /^headrace: strategy stream: device host .*use auto, map or read.*\[UNSUPPORTED\]\n$/,
    );
  });

  test("options that mean nothing alone, or nothing at all, are refused", async () => {
    for (const [args, text] of [
      [["--stream-codec", "lz4"], "--stream-codec means nothing without --strategy stream"],
      [
        ["--strategy", "stream", "--stream-cache", "/tmp"],
        "--stream-cache means nothing without --stream-codec",
      ],
      [["--strategy", "stream", "--stream-codec", "zstd"], "Allowed choices are lz4, lzfse"],
      [["--lanes", "65"], "whole number from 1 to 64; see"],
    ] as const) {
      const { code, err } = await headrace("load", "--device", "host", ...args);
      expect({ code, err }).toEqual({ code: 2, err: expect.stringContaining(text) });
    }
  });

  test("--lanes changes nothing that is delivered", async () => {
    const args = ["load", "--device", "host", "--strategy", "read", "--digest", "--lanes"];
    expect((await report(...args, "1")).digests).toEqual((await report(...args, "5")).digests);
  });
});
