import { describe, expect, spyOn, test } from "bun:test";
import * as fs from "node:fs";
import * as os from "node:os";
import { join } from "node:path";
import { ownerIsGone, ownerPrefix } from "../../src/cli/bench-owner.ts";

/** The beginning that this process gives, with other parts. */
function prefix({ place, pid, start }: { place?: string; pid?: number; start?: string } = {}): string {
  const [here, number, began] = ownerPrefix().split("-");
  return `${place ?? here}-${pid ?? number}-${start ?? began}-AbCdEf`;
}

/** Takes another system than that of this machine. */
const ELSEWHERE = `
  Object.defineProperty(process, "platform", { value: "darwin" });
  const { ownerIsGone, ownerPrefix } = await import(${JSON.stringify(join(import.meta.dir, "../../src/cli/bench-owner.ts"))});
`;

/** What `code` prints where `ps`, as that of a Mac, tells times as its environment says. */
async function onMac(folder: string, code: string, env: Record<string, string>) {
  const PATH = `${folder}:${process.env.PATH}`;
  const child = Bun.spawn([process.execPath, "-e", ELSEWHERE + code], {
    env: { ...process.env, PATH, ...env },
    stdin: "pipe",
    stdout: "pipe",
  });
  const { value } = await child.stdout.getReader().read();
  return { child, text: new TextDecoder().decode(value).trim() };
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

  test("is there for who has another time zone and language", async () => {
    const folder = fs.mkdtempSync(join(os.tmpdir(), "bench-owner-"));
    try {
      const script = '#!/bin/sh\necho "began at noon by $TZ in $LC_ALL"\n';
      fs.writeFileSync(join(folder, "ps"), script, { mode: 0o755 });
      const code = "console.log(ownerPrefix()); await Bun.stdin.text();";
      const runs = await onMac(folder, code, { TZ: "JST-9", LC_ALL: "ja_JP.UTF-8" });
      expect(runs.text).toMatch(/^[0-9a-f]{8}-\d+-(?!00000000)[0-9a-f]{8}-$/);
      const asks = `console.log(ownerIsGone(${JSON.stringify(runs.text)}))`;
      const asked = await onMac(folder, asks, { TZ: "CET-1", LC_ALL: "de_DE.UTF-8" });
      expect(asked.text).toBe("false");
      runs.child.stdin.end();
      await Promise.all([runs.child.exited, asked.child.exited]);
      expect((await onMac(folder, asks, { TZ: "CET-1" })).text).toBe("true");
    } finally {
      fs.rmSync(folder, { recursive: true });
    }
  });

  test.skipIf(process.platform !== "linux")(
    "is never gone on another machine, though that has the same name",
    async () => {
      const child = Bun.spawn(["true"]);
      await child.exited;
      const read = fs.readFileSync;
      let machine: string | undefined = "0123456789abcdef0123456789abcdef\n";
      const spy = spyOn(fs, "readFileSync").mockImplementation(((path: string, how: "utf8") => {
        if (path !== "/etc/machine-id") return read(path, how);
        if (machine === undefined) throw new Error("ENOENT");
        return machine;
      }) as typeof fs.readFileSync);
      try {
        const name = prefix({ pid: child.pid });
        expect(ownerIsGone(name)).toBe(true);
        machine = "fedcba9876543210fedcba9876543210\n";
        expect(ownerIsGone(name)).toBe(false);
        // Some have no such file: they have their names alone.
        machine = undefined;
        expect(ownerIsGone(name)).toBe(false);
        expect(ownerIsGone(prefix({ pid: child.pid }))).toBe(true);
      } finally {
        spy.mockRestore();
      }
    },
  );
});
