/** The workflows run nowhere near here, so that what can go stale in them is held to the package. */
import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "../..");
const FOLDER = join(ROOT, ".github/workflows");
const { scripts } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));

interface Step {
  readonly uses?: string;
  readonly run?: string;
}

interface Workflow {
  readonly permissions?: unknown;
  readonly concurrency?: unknown;
  readonly jobs: Readonly<Record<string, { "timeout-minutes"?: number; steps: Step[] }>>;
}

const names = readdirSync(FOLDER).filter((name) => name.endsWith(".yml"));

test("there is one for Linux and one for Macs", () => {
  expect(names.toSorted()).toEqual(["ci.yml", "macos.yml"]);
});

describe.each(names)("%s", (name) => {
  const workflow = Bun.YAML.parse(readFileSync(join(FOLDER, name), "utf8")) as Workflow;
  const jobs = Object.values(workflow.jobs);
  const steps = jobs.flatMap((job) => job.steps);

  test("may read alone, ends in time, and gives way to a newer run", () => {
    expect(workflow.permissions).toEqual({ contents: "read" });
    expect(workflow.concurrency).toMatchObject({ "cancel-in-progress": true });
    for (const job of jobs) expect(job["timeout-minutes"]).toBeLessThanOrEqual(60);
  });

  test("uses the actions of the platform alone, each of a fixed major version", () => {
    for (const { uses } of steps) {
      if (uses !== undefined) expect(uses).toMatch(/^actions\/[a-z-]+@(?:v\d+|[0-9a-f]{40})$/);
    }
  });

  test("runs scripts and files that are there", () => {
    const commands = steps.map(({ run }) => run ?? "").join("\n");
    const wanted = [...commands.matchAll(/bun run ([\w:-]+)/g)].map((match) => match[1]!);
    expect(wanted.filter((script) => !(script in scripts))).toEqual([]);
    const files = [...commands.matchAll(/(?:^|\s)((?:src|scripts|datasets|\.ci)\/[\w./-]+)/gm)];
    expect(files.length).toBeGreaterThan(0);
    expect(files.map((match) => match[1]!).filter((file) => !existsSync(join(ROOT, file)))).toEqual([]);
  });
});
