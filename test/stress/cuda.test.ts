/** The CUDA device over the mock of its driver, under load and with ends at bad moments; nothing may be left of it. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Device } from "../../src/device/device.ts";
import { type OpenDeviceOptions, openDevice } from "../../src/device/open.ts";
import { cudaMock } from "../conformance/cuda-subjects.ts";
import { patternFile, tempDir } from "../conformance/harness.ts";
import { collect, openDescriptors, openMappings } from "../conformance/process.ts";
import type { CudaMock } from "../cuda-mock/mock.ts";
import { closeOne, EXITS, expectExit, workAtRandom } from "./work.ts";

const opened = cudaMock();
const missing = "missing" in opened ? opened.missing : undefined;
const reason = missing === undefined ? "" : ` (left out: ${missing})`;
let dir: ReturnType<typeof tempDir>;
beforeAll(() => {
  dir = tempDir();
});
afterAll(() => dir[Symbol.dispose]());

function over(): { path: string; mock: CudaMock } {
  if ("missing" in opened) throw new Error(opened.missing);
  return opened;
}

/** `library` is the mock's. */
function open(options: OpenDeviceOptions = {}): Device {
  const { path } = over();
  return openDevice("cuda", { library: path, nvrtc: path, lanes: 3, ...options });
}

/** What the mock had to complain of. A device leaves streams, events and its lanes' slices to the end of its context,
 * which ends them all. */
function complaints(): string[] {
  return over()
    .mock.reports()
    .filter((line) => !line.startsWith("a context was destroyed with "));
}

/** What the process and the driver hold. */
function held() {
  const { abandoned: _, ...live } = over().mock.live();
  return { descriptors: openDescriptors(), mappings: openMappings(dir.path), ...live };
}

/** Opens a device and closes it with device memory, for which the mock keeps a descriptor from then on. */
async function warm(): Promise<void> {
  const device = open();
  device.createBuffer(1, "private");
  await device.close();
}

/** Waits until no more is held than before: Workers end a moment after they were told to. */
async function expectHeld(before: ReturnType<typeof held>): Promise<void> {
  const noMore = () => {
    const now: Readonly<Record<string, number>> = held();
    return Object.entries(before).every(([name, count]) => now[name]! <= count);
  };
  await collect(noMore);
  if (!noMore()) expect(held()).toEqual(before);
}

describe.skipIf(missing !== undefined)(`cuda under stress${reason}`, () => {
  const small = { pieceBytes: 65_536, windowBytes: 65_536, inlineCopyBytes: 4096, ringEntries: 32 };
  test.each([
    ["", {}, { maxDelayUs: 0 }],
    [" and shuffled streams", {}, { maxDelayUs: 200, pieceBytes: 10_000, seed: 3 }],
    [" and nothing registered", { mapBudget: 0 }, { maxDelayUs: 50 }],
  ])("random work, cancels, deadlines and collections%s", async (_, options, config) => {
    const { mock } = over();
    mock.reset();
    mock.configure(config);
    await warm();
    const before = held();
    const device = open({ ...small, ...options });
    await workAtRandom(device, { folder: dir.path, byteLength: 2 ** 20, rounds: 1000 });
    await device.close();
    expect(device.openResources).toBe(0);
    await expectHeld(before);
    expect(complaints()).toEqual([]);
  });

  test("100 devices opened and closed, half of them in flight", async () => {
    const { mock } = over();
    mock.reset();
    mock.configure({ maxDelayUs: 500 });
    const path = patternFile(dir.path, "devices", 200_000);
    await closeOne(open(), path, true);
    const before = held();
    for (let cycle = 0; cycle < 100; cycle++) await closeOne(open(), path, cycle % 2 === 0);
    await expectHeld(before);
    expect(complaints()).toEqual([]);
  });
});

describe.skipIf(missing !== undefined)(`processes that end with cuda open${reason}`, () => {
  for (const exit of EXITS) test(exit[0], () => expectExit(exit, dir.path, "cuda", over().path));
});
