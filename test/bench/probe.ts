/** One measurement in a process of its own: prints a JSON line. `probe.ts first|idle|rss|growth …` */
import { openLoader, type Strategy } from "../../src/index.ts";
import { shardsOf, sum } from "./bare.ts";
import { peakRss } from "./harness.ts";

const [task, source = "", strategy = "map", batchSize = "64", seed] = process.argv.slice(2);

async function first(folder: string): Promise<object> {
  const called = performance.now();
  await using loader = await openLoader(folder, {
    batchSize: Number(batchSize),
    seed: seed === undefined ? undefined : Number(seed),
    strategy: strategy as Strategy,
  });
  const opened = performance.now();
  for await (using batch of loader) {
    sum(new Uint8Array(batch.column("x").view.buffer));
    return { ms: performance.now() - opened, openMs: opened - called };
  }
  throw new Error("no batch");
}

/** Sums the source once; the arena is the bound on segments and on resident mapped pages. */
async function rss(sources: readonly string[]): Promise<object> {
  const memoryBytes = 128 * 2 ** 20;
  const paths = sources.flatMap(shardsOf);
  await using loader = await openLoader(paths, {
    batchSize: 4096,
    strategy: strategy as Strategy,
    memoryBytes,
  });
  let total = 0;
  for await (using batch of loader) total += sum(new Uint8Array(batch.column("x").view.buffer));
  const arenaBytes = strategy === "map" ? memoryBytes : loader.stats.arenaBytes;
  return { total, arenaBytes, peakRssBytes: peakRss() };
}

async function growth(folder: string): Promise<object> {
  const t0 = performance.now();
  await using loader = await openLoader(folder, { batchSize: 64, seed: 1, epochs: 1 });
  const t1 = performance.now();
  const iterator = loader[Symbol.asyncIterator]();
  const { value } = await iterator.next();
  value!.release();
  const t2 = performance.now();
  const state = JSON.stringify(loader.state());
  const t3 = performance.now();
  await iterator.return?.();
  return { open: t1 - t0, first: t2 - t1, state: t3 - t2, bytes: state.length };
}

const tasks: Record<string, () => Promise<object>> = {
  first: () => first(source),
  idle: async () => ({ peakRssBytes: peakRss() }),
  rss: () => rss(source.split(",")),
  growth: () => growth(source),
};
console.log(JSON.stringify(await tasks[task ?? ""]!()));
process.exit(0);
