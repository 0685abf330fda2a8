/** What memory is to spare, by what systems say. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { totalmem } from "node:os";
import { dirname, join } from "node:path";
import { MemoryRoom, type MemoryShare, memoryShares } from "../../../src/device/decode/room.ts";
import { useTempDir } from "../../loader/helpers.ts";

const MIB = 2 ** 20;
const temp = useTempDir();

/** A system of files that say this; its root. */
function system(name: string, files: Readonly<Record<string, string>>): string {
  for (const [path, text] of Object.entries(files)) {
    const file = temp(name, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
  return join(temp(name));
}

const MEMINFO = "MemTotal:        8388608 kB\nMemFree:          100 kB\nMemAvailable:    4194304 kB\n";
const MACHINE = { total: 2 ** 33, available: 2 ** 32 };

describe("memory", () => {
  test("of the machine", () => {
    expect(memoryShares(system("plain", { "proc/meminfo": MEMINFO }))).toEqual([MACHINE]);
  });

  test("of control groups, version 2: those that have a bound, up to the root", () => {
    const root = system("v2", {
      "proc/meminfo": MEMINFO,
      "proc/self/cgroup": "0::/outer/middle/inner\n",
      "sys/fs/cgroup/outer/memory.max": `${400 * MIB}\n`,
      "sys/fs/cgroup/outer/memory.current": `${150 * MIB}\n`,
      "sys/fs/cgroup/outer/memory.stat": `anon 7\ninactive_file ${50 * MIB}\nactive_file 9\n`,
      "sys/fs/cgroup/outer/middle/memory.max": "max\n",
      "sys/fs/cgroup/outer/middle/inner/memory.max": `${200 * MIB}\n`,
      "sys/fs/cgroup/outer/middle/inner/memory.current": `${150 * MIB}\n`,
      "sys/fs/cgroup/outer/middle/inner/memory.stat": "anon 7\n",
    });
    expect(memoryShares(root)).toEqual([
      MACHINE,
      { total: 200 * MIB, available: 50 * MIB },
      { total: 400 * MIB, available: 300 * MIB },
    ]);
  });

  test("of control groups, version 1, also where a container sees its own as the root", () => {
    const root = system("v1", {
      "proc/meminfo": MEMINFO,
      "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/docker/0123\n0::/\n",
      "sys/fs/cgroup/memory/memory.limit_in_bytes": `${300 * MIB}\n`,
      "sys/fs/cgroup/memory/memory.usage_in_bytes": `${100 * MIB}\n`,
      "sys/fs/cgroup/memory/memory.stat": `inactive_file 5\ntotal_inactive_file ${10 * MIB}\n`,
      "sys/fs/cgroup/memory/docker/0123/memory.limit_in_bytes": "9223372036854771712\n",
    });
    expect(memoryShares(root)).toEqual([MACHINE, { total: 300 * MIB, available: 210 * MIB }]);
  });

  test("half of it where no system says anything", () => {
    const [share, ...others] = memoryShares(temp("nowhere"));
    expect(others).toEqual([]);
    expect(share!.total).toBe(totalmem());
    expect(share!.available - share!.total / 4).toBeLessThan(totalmem() / 2);
  });

  test("of this machine", () => {
    for (const { total, available } of memoryShares()) {
      expect(total).toBeGreaterThan(0);
      expect(available).toBeLessThanOrEqual(total);
    }
  });
});

describe("what may be taken", () => {
  function rig(...shares: MemoryShare[]) {
    const seen = { shares, looks: 0, nowMs: 0 };
    const room = new MemoryRoom(
      () => {
        seen.looks++;
        return seen.shares;
      },
      () => seen.nowMs,
    );
    return { room, seen };
  }

  test("is all above a quarter of the tightest whole", () => {
    const fresh = () => rig({ total: 1000, available: 900 }, { total: 400, available: 300 }).room;
    expect(fresh().grant(201, 0)).toBe(false);
    expect(fresh().grant(200, 1)).toBe(false);
    const room = fresh();
    expect([room.grant(150, 0), room.grant(50, 150), room.grant(1, 200)]).toEqual([true, true, false]);
  });

  test("is asked for again after 64 MiB, and after half a second where there was nothing", () => {
    const { room, seen } = rig({ total: 4096 * MIB, available: 4000 * MIB });
    for (let i = 0; i < 64; i++) expect(room.grant(MIB, 0)).toBe(true);
    expect(seen.looks).toBe(1);
    seen.shares = [{ total: 4096 * MIB, available: 1024 * MIB }];
    expect([room.grant(MIB, 0), room.grant(MIB, 0)]).toEqual([false, false]);
    expect(seen.looks).toBe(2);
    seen.nowMs = 500;
    seen.shares = [{ total: 4096 * MIB, available: 1030 * MIB }];
    expect([room.grant(MIB, 0), seen.looks]).toEqual([true, 3]);
  });

  test("is to be given back where less than an eighth is available, which is looked at twice a second", () => {
    const { room, seen } = rig({ total: 800, available: 101 });
    expect(room.shortage()).toBe(0);
    seen.shares = [{ total: 800, available: 60 }];
    expect(room.shortage()).toBe(0);
    seen.nowMs = 500;
    expect(room.shortage()).toBe(40);
  });
});
