/** Other projects' readers, in Python: opt-in, over the same files in the same rounds. */
import { join } from "node:path";
import { HeadraceError } from "../index.ts";
import type { Format } from "./formats.ts";
import type { Order } from "./options.ts";

interface Peer {
  readonly orders: readonly Order[];
  readonly reads: (format: Format) => boolean;
}

const plainSafetensors = (format: Format) => format.name === "safetensors";
const arrowItself = (format: Format) =>
  format.base === "arrow" && (format.codec === undefined || format.codec.endsWith("-body"));

/** What each can read, and in which orders. */
const PEERS: Readonly<Record<string, Peer>> = {
  safetensors: { orders: ["sequential"], reads: plainSafetensors },
  pyarrow: { orders: ["sequential", "random"], reads: arrowItself },
  dataloader: { orders: ["sequential", "random"], reads: plainSafetensors },
  mlx: { orders: ["sequential"], reads: plainSafetensors },
  "mlx-data": { orders: ["sequential", "random"], reads: plainSafetensors },
};

export const PEER_NAMES = Object.keys(PEERS);
const SCRIPT = join(import.meta.dir, "peers/peer.py");

/** Throws `BAD_OPTION` where nobody is called `name`. */
export function checkPeer(name: string): void {
  if (Object.hasOwn(PEERS, name)) return;
  throw new HeadraceError("BAD_OPTION", `peers: ${name} is none of ${PEER_NAMES.join(", ")}`);
}

export function peerReads(name: string, format: Format): boolean {
  return PEERS[name]!.reads(format);
}

export function peerOrders(name: string): readonly Order[] {
  return PEERS[name]!.orders;
}

/** The interpreter of peers: the one that was named, or `HEADRACE_PYTHON`, or what the path has. */
export function pythonOf(named: string | undefined): string {
  return named ?? process.env.HEADRACE_PYTHON ?? "python3";
}

/** A peer here: with which versions, or why not. */
export type PeerFinding =
  | { readonly versions: Readonly<Record<string, string>> }
  | { readonly missing: string };

/** Whether `peer` starts under `python`. */
export function findPeer(python: string, peer: string): PeerFinding {
  try {
    const { success, stdout, stderr } = Bun.spawnSync([python, SCRIPT, "check", peer], { stdin: "ignore" });
    if (success) return { versions: JSON.parse(stdout.toString()) };
    const why = stderr.toString().trim().split("\n").at(-1) || "it ended without a word";
    return { missing: `${python}: ${why}` };
  } catch (error) {
    return { missing: `${python}: ${(error as Error).message}` };
  }
}

/** What is run for one trial; the specification goes to its standard input. */
export function peerCommand(python: string): string[] {
  return [python, SCRIPT, "run"];
}
