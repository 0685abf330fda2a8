/** `bun run bench:loader [name…]`: the loader against the machine's limits and against other loaders. */

import { packageVersion } from "./bare.ts";
import { type Row, writeResults } from "./harness.ts";
import { type Cases, copies, reads, sequential } from "./loader-cases.ts";
import { peers, peerVersions } from "./loader-peers.ts";
import { processes } from "./loader-processes.ts";

const wanted = process.argv.slice(2);
const wants = (name: string) => wanted.length === 0 || wanted.some((one) => name.startsWith(one));

const rows: Row[] = [];
const all: readonly Cases[] = [sequential, reads, copies, processes, peers];
for (const cases of all) {
  for (const [name, run] of Object.entries(cases)) if (wants(name)) rows.push(...(await run()));
}

const command = ["bun run bench:loader", ...wanted].join(" ");
const versions = { "apache-arrow": packageVersion("apache-arrow"), ...peerVersions() };
if (wanted.length === 0) console.log(`written to ${writeResults("loader", command, rows, versions)}`);
process.exit(0);
