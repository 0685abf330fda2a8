#!/usr/bin/env bun
/** The command line: parses, runs one command, and turns failures into one line and an exit code. */
import { Command, CommanderError } from "commander";
import { HeadraceError } from "../index.ts";
import { inspectCommand } from "./inspect.ts";
import { loadCommand } from "./load.ts";
import { ExitCode } from "./output.ts";

const program = new Command("headrace")
  .description("Feeds GPUs: safetensors and Arrow shards into device buffers, as batches.")
  .exitOverride()
  .configureOutput({ outputError: (text, write) => write(text) })
  .showSuggestionAfterError();

for (const command of [loadCommand(), inspectCommand()]) {
  program.addCommand(command.exitOverride().option("--debug", "print the stack of a failure"));
}

process.exitCode = await run(process.argv.slice(2));

async function run(args: readonly string[]): Promise<number> {
  try {
    await program.parseAsync(args, { from: "user" });
    return Number(process.exitCode ?? ExitCode.done);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? ExitCode.done : ExitCode.usage;
    const debug = args.includes("--debug");
    const known = error instanceof HeadraceError;
    const text = known
      ? `${error.message} [${error.code}]`
      : `unexpected failure: ${(error as Error).message}`;
    console.error(`headrace: ${text.replaceAll("\n", " ")}`);
    if (debug) console.error((error as Error).stack);
    else if (!known) console.error("headrace: run again with --debug for the stack");
    return known && error.code === "BAD_OPTION" ? ExitCode.usage : ExitCode.failed;
  }
}
