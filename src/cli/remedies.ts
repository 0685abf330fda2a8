/** What a machine lacks, each with the command that mends it. */
import { HeadraceError } from "../index.ts";
import type { Machine } from "./machine.ts";

/** Something missing. */
export interface Remedy {
  readonly problem: string;
  /** To type; absent where no command helps. */
  readonly command?: string;
}

/** What is known beyond the machine. */
export interface Findings {
  readonly machine: Machine;
  /** Why the Metal device did not open; undefined where it did. */
  readonly metal: unknown;
  /** Whether a Metal library was named, which is meant to work wherever this is. */
  readonly libraryNamed: boolean;
  /** Whether a Swift compiler is there. */
  readonly swift: boolean;
  /** The least version of Bun that the package asks for. */
  readonly leastBun: string;
}

/** macOS that the Metal library needs. */
const LEAST_MACOS = 14;
/** 128 open shards, each perhaps twice, with room for everything else. */
const LEAST_FILES = 1024;

/** What is missing, the gravest first. */
export function remediesFor(findings: Findings): Remedy[] {
  const { machine, metal, leastBun } = findings;
  const remedies: Remedy[] = [];
  if (Bun.semver.order(machine.bun, leastBun) < 0) {
    remedies.push({ problem: `Bun is ${machine.bun}, and ${leastBun} is needed`, command: "npm install" });
  }
  if (metal !== undefined) remedies.push(...metalRemedies(findings));
  if (machine.openFiles !== undefined && machine.openFiles < LEAST_FILES) {
    remedies.push({
      problem: `a process may open ${machine.openFiles} files, and many shards need more`,
      command: "ulimit -n 4096",
    });
  }
  return remedies;
}

function metalRemedies({ machine, metal, libraryNamed, swift }: Findings): Remedy[] {
  const { system, arch, translated } = machine;
  const build = { problem: `device metal did not open: ${reasonOf(metal)}`, command: "bun run native" };
  const version = /^macOS (\d+)/.exec(system)?.[1];
  if (version === undefined) return libraryNamed ? [build] : [];
  if (translated) {
    return [{ problem: "Bun runs as an Intel program on Apple silicon", command: "arch -arm64 npm install" }];
  }
  if (arch !== "arm64") return [{ problem: "device metal needs a Mac with Apple silicon; host works here" }];
  if (Number(version) < LEAST_MACOS) {
    const problem = `device metal needs macOS ${LEAST_MACOS} or later, and this is ${system}`;
    return [{ problem, command: "softwareupdate --list" }];
  }
  return swift
    ? [build]
    : [{ problem: "there is no Swift compiler", command: "xcode-select --install" }, build];
}

/** Why something failed, in one line. */
export function reasonOf(failure: unknown): string {
  const text = failure instanceof Error ? failure.message : String(failure);
  const code = failure instanceof HeadraceError ? ` [${failure.code}]` : "";
  return `${text.replaceAll(/\s*\n\s*/g, " ")}${code}`;
}
