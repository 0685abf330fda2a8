/** What `doctor` says of CUDA: its parts, and how those that are missing come. */
import type { CudaFindings } from "../index.ts";
import { bytesText } from "./output.ts";

/** What NVIDIA's libraries are named by, where they are not found or should not be. */
const VARIABLES = {
  driver: "HEADRACE_CUDA_LIBRARY",
  nvrtc: "HEADRACE_NVRTC_LIBRARY",
} as const;

type Environment = Readonly<Record<string, string | undefined>>;

/** Something missing, as in `remedies.ts`. */
interface Missing {
  readonly problem: string;
  readonly command?: string;
}

/** Name and value of each part. */
export function cudaRows({ driver, gpus, nvrtc, gds }: CudaFindings): [name: string, value: string][] {
  const rows: [string, string][] = [];
  if (driver.found) {
    const version = driver.version === undefined ? "" : `${driver.version}, `;
    rows.push(["driver", `${version}CUDA ${driver.cuda}, ${driver.path}`]);
  } else rows.push(["driver", absentText(driver.reason)]);
  if (!gpus.found) rows.push(["GPUs", absentText(gpus.reason)]);
  else {
    for (const { ordinal, name, memoryBytes, computeCapability, pciBusId } of gpus.list) {
      const text = `${name}, ${bytesText(memoryBytes)}, compute capability ${computeCapability}, ${pciBusId}`;
      rows.push([`GPU ${ordinal}`, text]);
    }
  }
  rows.push(["NVRTC", nvrtc.found ? `${nvrtc.version}, ${nvrtc.path}` : absentText(nvrtc.reason)]);
  const fs = gds.found && gds.nvidiaFs ? "nvidia-fs is loaded" : "nvidia-fs is not loaded";
  rows.push(["GPUDirect Storage", gds.found ? `${fs}, ${gds.path}` : absentText(gds.reason)]);
  return rows;
}

/** Whether there is a driver, or a part of one. */
export function hasCuda({ driver }: CudaFindings, nvidia: boolean): boolean {
  return driver.found || nvidia;
}

/** Whether the lack of CUDA's parts matters: its driver runs. A library alone may lie in any container. */
export function needsCuda({ gpus }: CudaFindings, nvidia: boolean): boolean {
  return gpus.found || nvidia;
}

/** What is missing, the gravest first. GPUDirect Storage is not: it is optional, and few machines gain by it. */
export function cudaRemedies(findings: CudaFindings, env: Environment): Missing[] {
  const { driver, gpus, nvrtc } = findings;
  if (!driver.found) return [missing(driver.reason, unset(VARIABLES.driver, env))];
  if (!gpus.found) return [missing(gpus.reason, unset(VARIABLES.driver, env) ?? "nvidia-smi")];
  if (nvrtc.found) return [];
  const command = unset(VARIABLES.nvrtc, env) ?? nvrtc.install;
  return [missing(`kernels cannot be compiled for CUDA: ${nvrtc.reason}`, command)];
}

function missing(problem: string, command: string | undefined): Missing {
  const text = problem.replaceAll(/\s*\n\s*/g, " ");
  return command === undefined ? { problem: text } : { problem: text, command };
}

/** What was named by hand is wrong, so that it is what has to go. */
function unset(variable: string, env: Environment): string | undefined {
  return (env[variable] ?? "") === "" ? undefined : `unset ${variable}`;
}

function absentText(reason: string): string {
  return `not here: ${reason}`;
}
