import { describe, expect, test } from "bun:test";
import { ownerIsGone, ownerPrefix } from "../../src/cli/bench-owner.ts";

/** The beginning that this process gives, with other parts. */
function prefix({ place, pid, start }: { place?: string; pid?: number; start?: string } = {}): string {
  const [here, number, began] = ownerPrefix().split("-");
  return `${place ?? here}-${pid ?? number}-${start ?? began}-AbCdEf`;
}

describe("the owner of a folder", () => {
  test("is there while it runs", () => {
    expect(ownerIsGone(prefix())).toBe(false);
    expect(ownerPrefix()).toBe(ownerPrefix());
  });

  test("is gone once it ended", async () => {
    const child = Bun.spawn(["true"]);
    await child.exited;
    expect(ownerIsGone(prefix({ pid: child.pid }))).toBe(true);
  });

  test.skipIf(process.platform !== "linux")(
    "is gone while its parent has not asked for its end",
    async () => {
      // The shell becomes a sleep, which never asks how its child ended.
      const parent = Bun.spawn(["sh", "-c", "sleep 0.2 & echo $!; exec sleep 30"], { stdout: "pipe" });
      const { value } = await parent.stdout.getReader().read();
      const pid = Number(new TextDecoder().decode(value));
      const until = performance.now() + 5000;
      while (!ownerIsGone(prefix({ pid, start: "00000000" })) && performance.now() < until)
        await Bun.sleep(5);
      expect(ownerIsGone(prefix({ pid, start: "00000000" }))).toBe(true);
      expect(process.kill(pid, 0)).toBe(true);
      parent.kill();
      await parent.exited;
    },
  );

  test("is gone where another process has its number", () => {
    expect(ownerIsGone(prefix({ start: "12345678" }))).toBe(true);
    expect(ownerIsGone(prefix({ pid: 1, start: "12345678" }))).toBe(true);
  });

  test("is never gone where that cannot be known", async () => {
    const child = Bun.spawn(["true"]);
    await child.exited;
    expect(ownerIsGone(prefix({ place: "12345678", pid: child.pid }))).toBe(false);
    expect(ownerIsGone(prefix({ start: "00000000" }))).toBe(false);
    for (const name of ["", "AbCdEf", "1-2-3-4", `x${prefix({ pid: child.pid })}`]) {
      expect(ownerIsGone(name)).toBe(false);
    }
  });
});
