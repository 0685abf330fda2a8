/** What stands behind `bench`: a dataset, or a subcommand that was misspelt. */
import { existsSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { HeadraceError } from "../index.ts";

/** To be called first by a command that allows excess arguments, since those of a misspelt subcommand are some: throws
 * `BAD_OPTION` where the first of the words behind `command` is neither a dataset nor one of its subcommands, or more
 * than one dataset is named, and `SOURCE_NOT_FOUND` where it can only be a path and nothing is there. */
export function checkSource(command: Command): void {
  const [source, ...more] = command.args;
  if (source === undefined) return;
  if (existsSync(source)) {
    if (more.length === 0) return;
    const text = `${more.join(" ")}: one dataset at a time, and ${source} is named already`;
    throw new HeadraceError("BAD_OPTION", text);
  }
  const names = command.commands.map((one) => one.name()).filter((name) => name !== "run");
  if (names.length === 0 || !/^[a-z]+$/i.test(source)) {
    throw new HeadraceError("SOURCE_NOT_FOUND", `${source}: there is no such file or folder`);
  }
  const near = nearest(source, names);
  const hint =
    near === undefined
      ? `the subcommands are ${names.join(", ")}`
      : `did you mean 'headrace bench ${[near, ...more].join(" ")}'?`;
  throw new HeadraceError(
    "BAD_OPTION",
    `${source}: neither a dataset, since there is no such file or folder, nor a subcommand; ${hint}`,
  );
}

/** That of `names` which commander takes for what was meant by `word`; undefined where none is near. */
function nearest(word: string, names: readonly string[]): string | undefined {
  const program = new Command().exitOverride().configureOutput({ writeErr: () => undefined });
  for (const name of names) program.addCommand(new Command(name));
  try {
    program.parse([word], { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return names.find((name) => error.message.includes(`Did you mean ${name}?`));
  }
  return undefined;
}
