/**
 * `bun run bench:loader [name…]`: the loader against the machine's limits and against other loaders. Each case
 * runs in a process of its own, both sides of a ratio in the same one. The results are
 * written to `results/<first name>.json`, or without names, when all run, to `results/loader.json`.
 */
import { packageVersion } from "./bare.ts";
import { type Row, runScript, writeResults } from "./harness.ts";
import { type Cases, copies, reads, sequential } from "./loader-cases.ts";
import { peers, peerVersions } from "./loader-peers.ts";
import { processes } from "./loader-processes.ts";

const all: Cases = { ...sequential, ...reads, ...copies, ...processes, ...peers };
const [first, ...rest] = process.argv.slice(2);

if (first === "--case") console.log(JSON.stringify(await all[rest[0]!]!()));
else {
  const wanted = first === undefined ? [""] : [first, ...rest];
  const names = Object.keys(all).filter((name) => wanted.some((one) => name.startsWith(one)));
  const rows = names.flatMap((name) => runScript<Row[]>("loader.ts", "--case", name));
  const versions = { "apache-arrow": packageVersion("apache-arrow"), ...peerVersions() };
  const command = ["bun run bench:loader", ...process.argv.slice(2)].join(" ");
  console.log(`written to ${writeResults(first ?? "loader", command, rows, versions)}`);
}
process.exit(0);
