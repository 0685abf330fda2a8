/** Names of compressed files: that of the file inside, then how it is compressed. */

/** What a container's name says. */
export interface ContainerName {
  readonly inner: "safetensors" | "arrow";
  readonly codec: "zstd" | "lz4";
  /** `.bp`: bytes were split into planes before, so that common tools do not give the file back. */
  readonly planes: boolean;
  /** The path without its last endings. */
  readonly innerPath: string;
}

const ENDING = /^(.*\.(safetensors|arrow|arrows|feather|ipc))(\.bp)?\.(zst|lz4)$/s;

/** What `path` says of a compressed shard; undefined where it names none. */
export function parseContainerName(path: string): ContainerName | undefined {
  const match = ENDING.exec(path);
  if (match === null) return undefined;
  const [, innerPath, ending, planes, compressed] = match;
  return {
    inner: ending === "safetensors" ? "safetensors" : "arrow",
    codec: compressed === "zst" ? "zstd" : "lz4",
    planes: planes !== undefined,
    innerPath: innerPath!,
  };
}

/** Whether `path` ends as a compressed shard does: `.safetensors.zst`, `.arrow.lz4`, `.safetensors.bp.zst`, … */
export function isContainerName(path: string): boolean {
  return ENDING.test(path);
}

/** The path of the file inside: `a.safetensors` of `a.safetensors.bp.zst`; `path` itself where it is no container. */
export function innerName(path: string): string {
  return parseContainerName(path)?.innerPath ?? path;
}
