#!/usr/bin/env bun
/** The command line: parses, runs one command, and turns failures into one line and an exit code. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Command, CommanderError } from "commander";
import { type ErrorCode, HeadraceError } from "../index.ts";
import { benchCommand } from "./bench.ts";
import { doctorCommand } from "./doctor.ts";
import { asFlags } from "./flags.ts";
import { inferCommand } from "./infer.ts";
import { inspectCommand } from "./inspect.ts";
import { loadCommand } from "./load.ts";
import { ExitCode, printable } from "./output.ts";
import { packCommand } from "./pack.ts";
import { verifyCommand } from "./verify.ts";

/** Failures whose messages name options. */
const OPTION_CODES: readonly ErrorCode[] = [
  "BAD_OPTION",
  "STATE_MISMATCH",
  "OTHER_JOB",
  "BATCH_TOO_LARGE",
  "TIMED_OUT",
  "UNSUPPORTED",
];

/** Failures that another command line would not have: where what was typed is wrong, and no file. */
const USAGE_CODES: readonly ErrorCode[] = ["BAD_OPTION", "UNKNOWN_COLUMN"];

const program = quiet(new Command("headrace"))
  // `bench` shares names of options with its subcommands: they are of the one behind which they stand.
  .enablePositionalOptions()
  .description(
    "Feeds GPUs: safetensors and Arrow shards into device buffers, as batches; and runs models over them.",
  )
  .version(version(), "--version", "print the version")
  .addHelpText("after", "\n'headrace load --help', and so with all others, has options and examples.\n");

for (const command of [
  loadCommand(),
  inferCommand(),
  packCommand(),
  verifyCommand(),
  benchCommand(),
  inspectCommand(),
  doctorCommand(),
]) {
  for (const one of [command, ...command.commands]) {
    quiet(one).option("--debug", "print the stack of a failure");
  }
  program.addCommand(command);
}

process.exitCode = await run(process.argv.slice(2));

async function run(args: readonly string[]): Promise<number> {
  try {
    await program.parseAsync(args, { from: "user" });
    return Number(process.exitCode ?? ExitCode.done);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? ExitCode.done : ExitCode.usage;
    return fail(error, args);
  }
}

function fail(error: unknown, args: readonly string[]): number {
  const debug = args.includes("--debug");
  const known = error instanceof HeadraceError;
  const message = error instanceof Error ? error.message : String(error);
  const text = known
    ? `${OPTION_CODES.includes(error.code) ? asFlags(message, args[0]) : message} [${error.code}]`
    : `unexpected failure: ${message}`;
  console.error(`headrace: ${printable(text.replaceAll(/\s*\n\s*/g, " "))}`);
  if (debug) console.error(error instanceof Error ? error.stack : text);
  else if (!known) console.error("headrace: run again with --debug for the stack");
  return known && USAGE_CODES.includes(error.code) ? ExitCode.usage : ExitCode.failed;
}

/** Lets failures of usage come as one line that says where help is, and pipes close at any time. */
function quiet(command: Command): Command {
  return command.exitOverride().configureOutput({
    // The streams of process throw where a pipe was closed; console does not.
    writeOut: (text) => console.log(text.replace(/\n$/, "")),
    writeErr: (text) => console.error(text.replace(/\n$/, "")),
    outputError(text, write) {
      const line = text
        .replace(/^error: /, "")
        .trim()
        .replace(/\.$/, "")
        .replaceAll(/\s*\n\s*/g, " ");
      write(`headrace: ${printable(line)}; see 'headrace ${helpOf(command)}--help'\n`);
    },
  });
}

function helpOf(command: Command): string {
  return command.parent === null ? "" : `${helpOf(command.parent)}${command.name()} `;
}

function version(): string {
  const text = readFileSync(join(import.meta.dir, "../../package.json"), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}
