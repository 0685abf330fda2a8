/** What the README's scripts for projects of one's own say, run as it stands there. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Loader, openDataset, openDevice } from "../../src/index.ts";
import { readOutputs } from "../infer/read-outputs.ts";
import { proseRows } from "./expected.ts";
import { ROOT, scratch, spawn } from "./process.ts";

setDefaultTimeout(120_000);

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
symlinkSync(join(ROOT, "node_modules/bun-types"), join(folder, "node_modules/bun-types"));
symlinkSync(join(ROOT, "datasets"), join(folder, "datasets"));
write("my-engine.ts");

const prompts = proseRows().map(({ tokens }) => [...tokens]);
const backwards = (row: number) => prompts[row]!.toReversed().slice(0, 8);

/** Runs the block as it is, but for what `change` makes of it. */
async function runBlock(name: string, change: (text: string) => string = (text) => text): Promise<string> {
  writeFileSync(join(folder, name), change(write(name)));
  const { code, out, err } = await spawn([process.execPath, name], folder).ended;
  expect({ code, err }).toEqual({ code: 0, err: "" });
  return out;
}

test("every script has the types that it should, in a project that is set up as it says", async () => {
  for (const name of ["llama.ts", "embed.ts", "http.ts", "lengths.ts", "run.ts", "job.ts"]) write(name);
  const files = ["llama.ts", "embed.ts", "http.ts", "lengths.ts", "run.ts", "job.ts", "my-engine.ts"];
  const said = ["allowImportingTsExtensions", "noEmit", "module", "strict", "types"];
  const stated = /```json\n([^`]*)```/.exec(readme)![1]!;
  expect(Object.keys(JSON.parse(stated).compilerOptions).toSorted()).toEqual(said.toSorted());
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ ...JSON.parse(stated), files }));
  const tsc = join(ROOT, "node_modules/.bin/tsc");
  const { code, out } = await spawn([tsc, "-p", folder], folder).ended;
  expect({ code, out }).toEqual({ code: 0, out: "" });
});

describe("openers", () => {
  test("of a model, which samples by its seed", async () => {
    const [out, again] = [await runBlock("llama.ts"), await runBlock("llama.ts")];
    const lines = (text: string) => text.trimEnd().split("\n").toSorted();
    expect(lines(out)).toEqual([expect.stringMatching(/^0 ".+"$/), expect.stringMatching(/^1 ".+"$/)]);
    expect(lines(again)).toEqual(lines(out));
  });

  test("of one that embeds", async () => {
    expect(await runBlock("embed.ts")).toMatch(/^192 Float32Array\(3\) \[ -?0\.\d+,/);
  });

  test("of a server", async () => {
    using server = Bun.serve({
      port: 0,
      async fetch(request) {
        const { model, prompt } = (await request.json()) as { model: string; prompt: string };
        return Response.json({ choices: [{ text: `${model}: ${prompt}`, finish_reason: "stop" }] });
      },
    });
    const out = await runBlock("http.ts", (text) =>
      text.replace("localhost:8000", `127.0.0.1:${server.port}`),
    );
    expect(out).toBe("my-model: The river\n");
  });

  test("of a writer, which goes on where it was", async () => {
    expect(await runBlock("lengths.ts")).toMatch(/rows: 3000,\s+resumedRows: 0,[\s\S]*complete: true/);
    expect(await runBlock("lengths.ts")).toMatch(/rows: 3000,\s+resumedRows: 3000,[\s\S]*complete: true/);
    await using device = openDevice("host");
    using dataset = openDataset(join(folder, "lengths"), device);
    await using loader = new Loader(dataset, device, { batchSize: 3000 });
    for await (using batch of loader) {
      expect([...batch.column("length").view]).toEqual(prompts.map(({ length }) => length));
    }
  });
});

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
