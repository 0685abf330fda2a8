/** What a machine lacks, each with the command that mends it. */
import { type CudaFindings, HeadraceError } from "../index.ts";
import { cudaRemedies, needsCuda } from "./doctor-cuda.ts";
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
  /** The parts of CUDA; their lack is told where an NVIDIA driver runs, or device cuda was asked for. */
  readonly cuda?: CudaFindings;
  /** The environment, which may name libraries. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** The device that was asked for, and why it did not open; undefined where it did. */
  readonly asked?: { readonly name: string; readonly failure: unknown };
  /** Why rates were not measured, where they were asked for. */
  readonly ratesReason?: string | undefined;
  /** Whether a Metal library was named, which is meant to work wherever this is. */
  readonly libraryNamed: boolean;
  /** Whether a Swift compiler is there. */
  readonly swift: boolean;
  /** The least version of Bun that the package asks for. */
  readonly leastBun: string;
}

const BUILD = "bun run native";
const SWIFT = "scripts/linux-swift";
/** macOS that the Metal library needs. */
const LEAST_MACOS = 14;
/** 128 open shards, each perhaps twice, with room for everything else. */
const LEAST_FILES = 1024;

/** What is missing, the gravest first. */
export function remediesFor(findings: Findings): Remedy[] {
  const { machine, metal, cuda, env = {}, asked, ratesReason, leastBun } = findings;
  const remedies: Remedy[] = [];
  if (Bun.semver.order(machine.bun, leastBun) < 0) {
    remedies.push({ problem: `Bun is ${machine.bun}, and ${leastBun} is needed`, command: "npm install" });
  }
  const ofMetal = metal === undefined ? [] : metalRemedies(findings);
  remedies.push(...ofMetal);
  const ofCuda = cuda === undefined ? [] : cudaRemedies(cuda, env);
  // What keeps a device from working is said once.
  const cudaSaid = asked?.name === "cuda" && asked.failure !== undefined && cuda?.gpus.found === false;
  if (cuda !== undefined && !cudaSaid && (needsCuda(cuda, machine.nvidia) || asked?.name === "cuda")) {
    remedies.push(...ofCuda);
  }
  if (asked?.failure !== undefined && (asked.name !== "metal" || ofMetal.length === 0)) {
    remedies.push({
      problem: `device ${asked.name} was asked for, and does not work: ${reasonOf(asked.failure)}`,
      ...(cudaSaid && ofCuda[0]?.command !== undefined ? { command: ofCuda[0].command } : {}),
    });
  }
  if (ratesReason !== undefined) remedies.push({ problem: `rates were not measured: ${ratesReason}` });
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
  const problem = `device metal did not open: ${reasonOf(metal)}`;
  const command = libraryCommand(problem, libraryNamed);
  const mended: Remedy = { problem, command };
  const version = /^macOS (\d+)/.exec(system)?.[1];
  if (version === undefined) return libraryNamed ? [mended] : [];
  if (translated) {
    return [{ problem: "Bun runs as an Intel program on Apple silicon", command: "arch -arm64 npm install" }];
  }
  if (arch !== "arm64") return [{ problem: "device metal needs a Mac with Apple silicon; host works here" }];
  if (Number(version) < LEAST_MACOS) {
    const old = `device metal needs macOS ${LEAST_MACOS} or later, and this is ${system}`;
    return [{ problem: old, command: "softwareupdate --list" }];
  }
  return swift || command !== BUILD
    ? [mended]
    : [{ problem: "there is no Swift compiler", command: "xcode-select --install" }, mended];
}

/** The command for what the device itself says of its library. Building mends the package's own alone. */
function libraryCommand(problem: string, libraryNamed: boolean): string {
  if (!libraryNamed || problem.includes(BUILD)) return BUILD;
  if (problem.includes(SWIFT)) return `${SWIFT} npx bun run doctor`;
  return "unset HEADRACE_METAL_LIBRARY";
}

/** Why something failed, in one line. */
export function reasonOf(failure: unknown): string {
  const text = failure instanceof Error ? failure.message : String(failure);
  const code = failure instanceof HeadraceError ? ` [${failure.code}]` : "";
  return `${text.replaceAll(/\s*\n\s*/g, " ")}${code}`;
}
