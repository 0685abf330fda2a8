/** What the process holds, as the system sees it. */
import { readdirSync, readFileSync } from "node:fs";

/** Open descriptors of this process. */
export function openDescriptors(): number {
  return readdirSync(process.platform === "linux" ? "/proc/self/fd" : "/dev/fd").length;
}

/** Mappings of files under `dir`; 0 where the system does not tell. */
export function openMappings(dir: string): number {
  if (process.platform !== "linux") return 0;
  return readFileSync("/proc/self/maps", "utf8")
    .split("\n")
    .filter((line) => line.includes(dir)).length;
}

/** Bytes of anonymous address space, in kB, as the system counts it; 0 where it does not tell. */
export function virtualKilobytes(): number {
  if (process.platform !== "linux") return 0;
  return Number(/^VmSize:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? 0);
}

/** Runs the garbage collector and the tasks it leaves until `done`, or a second has gone by. */
export async function collect(done: () => boolean): Promise<void> {
  for (let round = 0; round < 100 && !done(); round++) {
    Bun.gc(true);
    await Bun.sleep(10);
  }
}
