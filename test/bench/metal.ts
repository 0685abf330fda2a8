/**
 * `bun run bench:metal [--short] [--out FILE]`: the Metal device against the host device and bare memcpy. Over a
 * Mac's GPU, or on Linux over the stand-in that HEADRACE_METAL_LIBRARY names, where it tells of this library's own
 * costs and nothing of Metal's. Writes `results/metal.json`, or FILE.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Syscalls } from "../../src/device/host/syscalls.ts";
import {
  type Device,
  type DeviceBuffer,
  type DeviceFile,
  type DeviceQueue,
  HeadraceError,
  openDevice,
  RequestList,
} from "../../src/index.ts";
import { compare, measure, quantile, type Row, writeResults } from "./harness.ts";

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const SMALL = 4 * KIB;

/** One device with what the cases need. */
interface Side {
  readonly device: Device;
  readonly queue: DeviceQueue;
  readonly file: DeviceFile;
  readonly source: DeviceBuffer;
  readonly target: DeviceBuffer;
}

const args = process.argv.slice(2);
const short = args.includes("--short");
const out = args.includes("--out") ? args[args.indexOf("--out") + 1] : undefined;
const rounds = short ? 5 : 15;
const bytes = short ? 64 * MIB : 256 * MIB;

const folder = mkdtempSync(join(tmpdir(), "headrace-bench-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
const path = join(folder, "data");
writeFileSync(path, Buffer.alloc(bytes, "headrace"));

function openSide(name: string): Side {
  const device = openDevice(name);
  const side = {
    device,
    queue: device.createQueue(),
    file: device.openFile(path),
    source: device.createBuffer(bytes),
    target: device.createBuffer(bytes),
  };
  // Pages of fresh memory come with its first touch, which is not what is measured.
  for (const buffer of [side.source, side.target]) new Uint8Array(buffer.view(0, bytes)).fill(1);
  return side;
}

async function done({ queue }: Side, list: RequestList): Promise<void> {
  const { error } = await queue.completion(queue.submit(list));
  if (error !== undefined) throw error;
}

/** Seconds of one read of 4 KiB after the other, each. */
async function latencies(side: Side, count: number): Promise<number[]> {
  const taken: number[] = [];
  for (let i = 0; i < count; i++) {
    const list = new RequestList().read(
      side.file,
      (i * 7919 * SMALL) % (bytes - SMALL),
      side.target,
      0,
      SMALL,
    );
    const started = Bun.nanoseconds();
    await done(side, list);
    taken.push((Bun.nanoseconds() - started) / 1000);
  }
  return taken;
}

async function latencyRows(metal: Side, host: Side): Promise<Row[]> {
  const count = short ? 500 : 2000;
  const figures = { metal: [[], []] as number[][], host: [[], []] as number[][] };
  for (let round = 0; round <= rounds; round++) {
    for (const [name, side] of [
      ["metal", metal],
      ["host", host],
    ] as const) {
      const taken = await latencies(side, count);
      // The first round compiles.
      if (round === 0) continue;
      figures[name][0]!.push(quantile(taken, 0.5));
      figures[name][1]!.push(quantile(taken, 0.99));
    }
  }
  return ["p50", "p99"].map((name, at) =>
    compare(
      {
        name: `read of 4 KiB seen by JavaScript, ${name}`,
        unit: "µs",
        against: "host device",
        higherIsBetter: false,
        note: `${count} one after the other a round`,
      },
      figures.metal[at]!,
      figures.host[at]!,
    ),
  );
}

/** Requests a second of one submission of `count` reads of 4 KiB. */
async function batchRate(side: Side, count: number): Promise<number> {
  const list = new RequestList();
  for (let i = 0; i < count; i++) {
    const at = (i * SMALL) % (bytes - SMALL);
    list.read(side.file, at, side.target, at, SMALL);
  }
  const started = Bun.nanoseconds();
  await done(side, list);
  return (count * 1e9) / (Bun.nanoseconds() - started);
}

/** Submissions of one read of 4 KiB a second, 64 in flight. */
async function singleRate(side: Side, count: number): Promise<number> {
  const list = new RequestList().read(side.file, 0, side.target, 0, SMALL);
  const started = Bun.nanoseconds();
  const lane = async () => {
    for (let i = 0; i < count / 64; i++) await done(side, list);
  };
  await Promise.all(Array.from({ length: 64 }, lane));
  return (count * 1e9) / (Bun.nanoseconds() - started);
}

/** Submissions of a copy of 4 KiB a second, which end within the call. */
async function inlineRate(side: Side, count: number): Promise<number> {
  const list = new RequestList().copy(side.source, 0, side.target, 0, SMALL);
  const started = Bun.nanoseconds();
  for (let i = 0; i < count; i++) side.queue.submit(list);
  await done(side, list);
  return (count * 1e9) / (Bun.nanoseconds() - started);
}

async function gigabytes(work: () => Promise<void> | void): Promise<number> {
  const started = Bun.nanoseconds();
  await work();
  return bytes / (Bun.nanoseconds() - started);
}

async function rateRows(metal: Side, host: Side): Promise<Row[]> {
  const count = short ? 16_000 : 64_000;
  const both = (work: (side: Side, count: number) => Promise<number>) => ({
    higherIsBetter: true,
    rounds,
    warmups: 2,
    against: "host device",
    ours: () => work(metal, count),
    theirs: () => work(host, count),
  });
  const syscalls = new Syscalls();
  const copyAll = (side: Side) => done(side, new RequestList().copy(side.source, 0, side.target, 0, bytes));
  const readAll = (side: Side) => done(side, new RequestList().read(side.file, 0, side.target, 0, bytes));
  return [
    await measure({ name: "reads of 4 KiB, one batch", unit: "requests/s", ...both(batchRate) }),
    await measure({
      name: "reads of 4 KiB, singles",
      unit: "requests/s",
      ...both(singleRate),
      note: "64 in flight",
    }),
    await measure({ name: "copies of 4 KiB, singles", unit: "requests/s", ...both(inlineRate) }),
    await measure({
      name: `copy of ${bytes / MIB} MiB`,
      unit: "GB/s",
      against: "memcpy by one thread",
      higherIsBetter: true,
      rounds,
      ours: () => gigabytes(() => copyAll(metal)),
      theirs: () => gigabytes(() => syscalls.copy(metal.target.hostAddress, metal.source.hostAddress, bytes)),
    }),
    await measure({
      name: `warm read of ${bytes / MIB} MiB`,
      unit: "GB/s",
      higherIsBetter: true,
      rounds,
      against: "host device",
      ours: () => gigabytes(() => readAll(metal)),
      theirs: () => gigabytes(() => readAll(host)),
    }),
  ];
}

/** Parts of one core that the process takes while `devices` are open and nothing is asked of them. */
async function idleShare(ms: number): Promise<number> {
  const before = process.cpuUsage();
  const started = performance.now();
  await Bun.sleep(ms);
  const { user, system } = process.cpuUsage(before);
  return (100 * (user + system)) / 1000 / (performance.now() - started);
}

async function idleRow(): Promise<Row> {
  const shares: Record<"open" | "none", number[]> = { open: [], none: [] };
  for (let round = 0; round < (short ? 2 : 5); round++) {
    shares.none.push(await idleShare(1000));
    const device = openDevice("metal");
    await Bun.sleep(100);
    shares.open.push(await idleShare(1000));
    await device.close();
  }
  const least = (values: number[]) => values.map((value) => Math.max(value, 0.01));
  return compare(
    { name: "CPU of an idle device", unit: "% of a core", against: "no device open", higherIsBetter: false },
    least(shares.open),
    least(shares.none),
  );
}

async function main(): Promise<void> {
  const idle = await idleRow();
  const metal = openSide("metal");
  const host = openSide("host");
  console.log(`${metal.device.capabilities.name}: ${metal.device.facts.library}`);
  const rows = [...(await latencyRows(metal, host)), ...(await rateRows(metal, host)), idle];
  const versions = {
    device: metal.device.capabilities.name,
    completions: String(metal.device.facts.completions),
  };
  for (const side of [metal, host]) await side.device.close();
  const command = ["bun run bench:metal", ...args].join(" ");
  console.log(`written to ${writeResults("metal", command, rows, versions, out)}`);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof HeadraceError) || error.code !== "DEVICE_UNAVAILABLE") throw error;
  console.error(error.message);
  process.exitCode = 69;
}
