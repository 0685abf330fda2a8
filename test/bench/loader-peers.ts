/** The loaders that a user would take instead, on the same files in the same run. Those in Python run where
 * `HEADRACE_PEERS_PYTHON` names an interpreter with the packages of peers/requirements.txt. */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  Field,
  Int32,
  List,
  makeBuilder,
  Table,
  tableFromIPC,
  tableToIPC,
  vectorFromArray,
} from "apache-arrow";
import { SafeTensor } from "safetensors";
import { openLoader } from "../../src/index.ts";
import { shardsOf, sum, warm } from "./bare.ts";
import { DATA_FOLDER, ROW_BYTES, rowShards } from "./data.ts";
import { compare, measure, type Row, seconds } from "./harness.ts";
import { bytesOf, type Cases, drain, KEEP_ALL } from "./loader-cases.ts";

const PYTHON = process.env.HEADRACE_PEERS_PYTHON;
const PEER_SCRIPT = join(import.meta.dir, "peers/peer.py");
const ROUNDS = 5;
const BATCH = 256;

/** Versions of what is installed for the named interpreter. */
export function peerVersions(): Record<string, string> {
  if (PYTHON === undefined) return {};
  return JSON.parse(execFileSync(PYTHON, [PEER_SCRIPT, "versions"], { encoding: "utf8" }));
}

function pythonRates(loader: string, limit: number, paths: readonly string[]): number[] | string {
  if (PYTHON === undefined) return "HEADRACE_PEERS_PYTHON is not set";
  try {
    const args = [PEER_SCRIPT, loader, String(ROUNDS), String(limit), ...paths];
    const output = execFileSync(PYTHON, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
    return (JSON.parse(output.trim().split("\n").at(-1)!) as { rates: number[] }).rates;
  } catch (error) {
    const text = String((error as { stderr?: string }).stderr ?? error).trim();
    return text.split("\n").at(-1)!;
  }
}

/** Compares our rates with a Python loader's; a peer that did not run is said so and gives no row. */
async function against(
  peer: string,
  work: string,
  limit: number,
  paths: readonly string[],
  ours: () => Promise<number>,
): Promise<Row[]> {
  const theirs = pythonRates(peer, limit, paths);
  if (typeof theirs === "string") {
    console.log(`peer.${peer}.${work}: skipped: ${theirs}`);
    return [];
  }
  await ours();
  const rates: number[] = [];
  for (let i = 0; i < ROUNDS; i++) rates.push(await ours());
  const name = `peer.${peer}.${work}`;
  return [
    compare(
      { name, unit: "rows/s", against: peer, higherIsBetter: true, note: "warm, float32 rows of 3 KiB" },
      rates,
      theirs,
    ),
  ];
}

/** An Arrow file of ragged int32 tokens, by apache-arrow's own builders and writer. */
function tokensFile(numRows: number): string {
  const path = join(DATA_FOLDER, "peer-tokens.arrow");
  const builder = makeBuilder({ type: new List(new Field("item", new Int32(), false)) });
  let state = 7;
  for (let i = 0; i < numRows; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const row = Array.from({ length: 40 + (state % 441) }, (_, token) => token);
    builder.append(vectorFromArray(row, new Int32()));
  }
  writeFileSync(path, tableToIPC(new Table({ tokens: builder.finish().toVector() }), "file"));
  return path;
}

export const peers: Cases = {
  "peer.apache-arrow": async () => {
    const numRows = 20_000;
    const path = tokensFile(numRows);
    const padTo = 64;
    await using loader = await openLoader(path, { batchSize: 64, padTo, epochs: Number.POSITIVE_INFINITY });
    const theirs = () => {
      const vector = tableFromIPC(readFileSync(path)).getChild("tokens")!;
      for (let first = 0; first < numRows; first += 64) {
        const rows = Array.from({ length: Math.min(64, numRows - first) }, (_, i) =>
          vector.get(first + i).toArray(),
        );
        const width = Math.ceil(Math.max(...rows.map((row) => row.length)) / padTo) * padTo;
        const batch = new Int32Array(rows.length * width);
        rows.forEach((row, i) => {
          batch.set(row, i * width);
        });
      }
    };
    const row = await measure({
      name: "peer.apache-arrow.pad",
      unit: "rows/s",
      against: "apache-arrow: tableFromIPC of the whole file, get(i).toArray() into padded batches",
      higherIsBetter: true,
      rounds: ROUNDS,
      note: `${numRows} ragged rows of int32 tokens, warm, batches of 64`,
      ours: async () => numRows / (await seconds(() => drain(loader.epoch()))),
      theirs: async () => numRows / (await seconds(theirs)),
    });
    return [row];
  },
  "peer.npm-safetensors": async () => {
    const [path] = shardsOf(rowShards(4)) as [string];
    warm([path]);
    const numRows = Math.floor(2 ** 30 / ROW_BYTES);
    const row = await measure({
      name: "peer.npm-safetensors.sum",
      unit: "rows/s",
      against: "npm safetensors 0.0.1: the whole file into memory, then its tensor",
      higherIsBetter: true,
      rounds: ROUNDS,
      note: "one shard of 1 GiB, warm, opened each round, every byte summed",
      ours: async () => {
        const time = await seconds(async () => {
          await using loader = await openLoader(path, { batchSize: 4096 });
          await drain(loader, (batch) => void sum(bytesOf(batch, "x")));
        });
        return numRows / time;
      },
      theirs: async () =>
        numRows /
        (await seconds(() => {
          const bytes = new Uint8Array(readFileSync(path));
          sum(new SafeTensor(bytes).getTensor("x") as Uint8Array);
        })),
    });
    return [row];
  },
  "peer.safetensors": async () => {
    const paths = shardsOf(rowShards(4));
    warm(paths);
    const numRows = paths.length * Math.floor(2 ** 30 / ROW_BYTES);
    const ours = async () => {
      const time = await seconds(async () => {
        await using loader = await openLoader(paths, { batchSize: 4096, memoryBytes: KEEP_ALL });
        await drain(loader, (batch) => void sum(bytesOf(batch, "x")));
      });
      return numRows / time;
    };
    return [
      ...(await against("safetensors.numpy", "sum", 0, paths, ours)),
      ...(await against("safetensors.torch", "sum", 0, paths, ours)),
    ];
  },
  "peer.rows": async () => {
    const folder = rowShards(4);
    const paths = shardsOf(folder);
    warm(paths);
    const limit = 40 * 1024;
    const ours = async () => {
      await using loader = await openLoader(paths, { batchSize: BATCH, seed: 3, limit });
      return limit / (await seconds(() => drain(loader)));
    };
    const rows: Row[] = [];
    for (const peer of ["dataloader.0", "dataloader.1", "dataloader.2", "datasets", "mlx-data"]) {
      rows.push(...(await against(peer, "shuffled-rows", limit, paths, ours)));
    }
    return rows;
  },
};
