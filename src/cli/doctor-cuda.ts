/** What `doctor` says of CUDA: its parts, and how those that are missing come. */
import type { CudaFindings } from "../index.ts";
import { bytesText } from "./output.ts";

/** What NVIDIA's libraries are named by, where they are not found or should not be. */
const VARIABLES = {
  driver: "HEADRACE_CUDA_LIBRARY",
  nvrtc: "HEADRACE_NVRTC_LIBRARY",
  gds: "HEADRACE_CUFILE_LIBRARY",
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

/** Whether the lack of CUDA's parts matters: there is a driver, or a part of one. */
export function hasCuda({ driver }: CudaFindings, nvidia: boolean): boolean {
  return driver.found || nvidia;
}

/** What is missing, the gravest first. */
export function cudaRemedies(findings: CudaFindings, env: Environment): Missing[] {
  const { driver, gpus, nvrtc, gds } = findings;
  if (!driver.found) return [missing(driver.reason, unset(VARIABLES.driver, env))];
  if (!gpus.found) return [missing(gpus.reason, unset(VARIABLES.driver, env) ?? "nvidia-smi")];
  const remedies: Missing[] = [];
  if (!nvrtc.found) {
    const command = unset(VARIABLES.nvrtc, env) ?? "pip install nvidia-cuda-nvrtc-cu12";
    remedies.push(missing(`kernels cannot be compiled for CUDA: ${nvrtc.reason}`, command));
  }
  if (!gds.found) {
    const command = unset(VARIABLES.gds, env) ?? "sudo apt-get install nvidia-gds";
    remedies.push(missing(`without cuFile, files reach the GPU through host memory: ${gds.reason}`, command));
  } else if (!gds.nvidiaFs) {
    const text =
      "nvidia-fs is not loaded: most disks reach the GPU through host memory then, also with cuFile";
    remedies.push(missing(text, "sudo modprobe nvidia-fs"));
  }
  return remedies;
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
