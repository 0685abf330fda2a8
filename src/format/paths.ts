/** Names of shards that come out of files are untrusted: they must stay below the file that names them. */
import { HeadraceError } from "../errors.ts";

/** Throws `UNSAFE_PATH` unless `path` is relative, has no `..` part, no scheme, no backslash and no NUL. */
export function checkShardPath(path: string): void {
  const reason =
    path === ""
      ? "is empty"
      : path.startsWith("/")
        ? "is absolute"
        : path.includes("://")
          ? "has a scheme"
          : path.includes("\\") || path.includes("\0")
            ? "holds a backslash or a NUL"
            : path.split("/").includes("..")
              ? "leads out of its folder"
              : undefined;
  if (reason !== undefined) {
    throw new HeadraceError("UNSAFE_PATH", `shard name ${JSON.stringify(path)} ${reason}`);
  }
}
