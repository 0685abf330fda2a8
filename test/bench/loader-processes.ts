/** What is measured in processes of its own: the first batch, memory, growth, the whole command. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { shardsOf, warm } from "./bare.ts";
import { rowShards, sparseManifest, sparseShards } from "./data.ts";
import { compare, quantile, type Row, runScript, seconds } from "./harness.ts";
import type { Cases } from "./loader-cases.ts";

const MIB = 2 ** 20;

interface Probe {
  readonly ms: number;
  readonly openMs: number;
  readonly peakRssBytes: number;
  readonly arenaBytes: number;
}

/** A figure in a process of its own, against a budget. */
function budget(name: string, unit: string, values: readonly number[], limit: number, note: string): Row {
  return compare(
    { name, unit, against: "the budget", higherIsBetter: false, note },
    values,
    values.map(() => limit),
  );
}

export const processes: Cases = {
  "loader.first-batch": async () => {
    const folder = rowShards(4);
    warm(shardsOf(folder));
    const cases = [
      { name: "loader.first-batch", what: "64 rows in order, map", args: ["map", "64"] },
      { name: "loader.first-batch.shuffled", what: "256 shuffled rows, map", args: ["map", "256", "1"] },
      { name: "loader.first-batch.read", what: "64 rows in order, read", args: ["read", "64"] },
    ];
    return cases.map(({ name, what, args }) => {
      const probes = Array.from({ length: 11 }, () => runScript<Probe>("probe.ts", "first", folder, ...args));
      const open = quantile(
        probes.map((probe) => probe.openMs),
        0.5,
      );
      const note = `4 GiB in 4 shards, ${what}, summed; beyond opening the source, its files and the device (${open.toFixed(1)} ms), all in a fresh process`;
      return budget(
        name,
        "ms",
        probes.map((probe) => probe.ms),
        10,
        note,
      );
    });
  },
  "loader.rss": async () => {
    const folders = [sparseShards(16), rowShards(4)];
    const rows: Row[] = [];
    for (const strategy of ["map", "read"]) {
      const idle = quantile(
        Array.from({ length: 5 }, () => runScript<Probe>("probe.ts", "idle").peakRssBytes),
        0.5,
      );
      const probes = Array.from({ length: 5 }, () =>
        runScript<Probe>("probe.ts", "rss", folders.join(","), strategy),
      );
      const over = probes.map((probe) => (probe.peakRssBytes - idle - probe.arenaBytes) / MIB);
      const arena = (probes[0]!.arenaBytes / MIB).toFixed(0);
      rows.push(
        budget(
          strategy === "map" ? "loader.rss" : "loader.rss.read",
          "MiB over the arena",
          over,
          64,
          `20 GiB in 16 sparse and 4 real shards, ${strategy}, every byte summed; arena ${arena} MiB; peak RSS less that of an idle process (${(idle / MIB).toFixed(0)} MiB)`,
        ),
      );
    }
    return rows;
  },
  "loader.growth": async () => {
    const large = sparseManifest(10_000, 100_000);
    const small = sparseManifest(10_000, 10_000);
    const rows: Row[] = [];
    const parts = ["open", "first", "state"] as const;
    const run = (folder: string) =>
      Array.from({ length: 7 }, () =>
        runScript<Record<(typeof parts)[number], number>>("probe.ts", "growth", folder),
      );
    const [ours, theirs] = [run(large), run(small)];
    for (const part of parts) {
      rows.push(
        compare(
          {
            name: part === "open" ? "loader.growth" : `loader.growth.${part}`,
            unit: "ms",
            against: "the same with 10^8 samples",
            higherIsBetter: false,
            note: `${part === "first" ? "first shuffled batch of 64" : part}, 10^9 samples in 10,000 sparse shards`,
          },
          ours.map((probe) => probe[part]),
          theirs.map((probe) => probe[part]),
        ),
      );
    }
    return rows;
  },
  "loader.process": async () => {
    const root = join(import.meta.dir, "../..");
    if (!existsSync(join(root, "datasets/prose"))) throw new Error("datasets/prose is missing");
    const time = (...args: string[]) =>
      seconds(() => {
        const { exitCode } = Bun.spawnSync([process.execPath, ...args], { cwd: root });
        if (exitCode !== 0) throw new Error(`${args.join(" ")} ended with ${exitCode}`);
      });
    const ours: number[] = [];
    const empty: number[] = [];
    for (let round = 0; round < 11; round++) {
      empty.push((await time(join(import.meta.dir, "empty.ts"))) * 1000);
      ours.push((await time("src/cli/main.ts", "load")) * 1000);
    }
    const limit = Math.max(250, 1.5 * quantile(empty, 0.5) + 100);
    const note = `bun run load on datasets/prose, whole process; an empty script takes ${quantile(empty, 0.5).toFixed(0)} ms`;
    return [budget("loader.process", "ms", ours, limit, note)];
  },
};
