/**
 * `bun run bench:stream [name…]`: compressed shards through the loader against the compression libraries themselves,
 * their command lines and pyarrow. Each case runs in a process of its own, both sides of a ratio interleaved. The results
 * are written to `results/stream.json`, or under the first name where some are given.
 */
import { type Row, runScript, writeResults } from "./harness.ts";
import type { Cases } from "./loader-cases.ts";
import { decodes, random, tools } from "./stream-cases.ts";
import { pyarrow, streamVersions } from "./stream-peers.ts";

const all: Cases = { ...decodes, ...tools, ...random, ...pyarrow };
const [first, ...rest] = process.argv.slice(2);

if (first === "--case") console.log(JSON.stringify(await all[rest[0]!]!()));
else {
  const wanted = first === undefined ? [""] : [first, ...rest];
  const names = Object.keys(all).filter((name) => wanted.some((one) => name.startsWith(one)));
  const rows = names.flatMap((name) => runScript<Row[]>("stream.ts", "--case", name));
  const command = ["bun run bench:stream", ...process.argv.slice(2)].join(" ");
  console.log(`written to ${writeResults(first ?? "stream", command, rows, streamVersions())}`);
}
process.exit(0);
