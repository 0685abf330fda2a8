/** What the README says of an engine of one's own, run as it stands there. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readOutputs } from "../infer/read-outputs.ts";
import { proseRows } from "./expected.ts";
import { ROOT, scratch, spawn } from "./process.ts";

const folder = scratch();
const readme = readFileSync(join(ROOT, "README.md"), "utf8");

/** The block that begins with `// NAME`, as a file of that name. */
function write(name: string): string {
  const block = new RegExp(`\`\`\`ts\n(// ${name.replace(".", "\\.")}[^\n]*\n[^]*?)\`\`\``).exec(readme);
  if (block === null) throw new Error(`the README has no ${name}`);
  writeFileSync(join(folder, name), block[1]!);
  return block[1]!;
}

// The package by its name, as where it is installed; the datasets by theirs, as in the repository.
mkdirSync(join(folder, "node_modules"));
symlinkSync(ROOT, join(folder, "node_modules/headrace"));
symlinkSync(join(ROOT, "datasets"), join(folder, "datasets"));
write("my-engine.ts");

const prompts = proseRows().map(({ tokens }) => [...tokens]);
const backwards = (row: number) => prompts[row]!.toReversed().slice(0, 8);

describe("an engine of one's own", () => {
  test("runs over the loader and the scheduler, in ten lines", async () => {
    const text = write("run.ts");
    const lines = text.split("\n").filter((line) => line.trim() !== "" && !line.startsWith("//"));
    expect(lines.length).toBeLessThanOrEqual(10);
    const { code, out, err } = await spawn([process.execPath, "run.ts"], folder).ended;
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const found = out
      .trimEnd()
      .split("\n")
      .map((line) => line.split(" ").map(Number));
    expect(found.toSorted((a, b) => a[0]! - b[0]!)).toEqual(
      Array.from({ length: 100 }, (_, row) => [row, ...backwards(row)]),
    );
  });

  test("runs as a job with outputs", async () => {
    write("job.ts");
    const { code, out, err } = await spawn([process.execPath, "job.ts"], folder).ended;
    expect({ code, out, err }).toEqual({ code: 0, out: "3000 24000\n", err: "" });
    expect(readOutputs(join(folder, "out")).map(({ row, tokens }) => [row, tokens])).toEqual(
      prompts.map((_, row) => [row, backwards(row)]),
    );
  });
});
