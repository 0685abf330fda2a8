/** `bench report`: a run as one page of HTML. */
import { extname } from "node:path";
import { Command } from "commander";
import { readRecords } from "../bench/read.ts";
import { saveText } from "../index.ts";
import { bytesText, printable } from "./output.ts";
import { RESULTS_HELP, resultsPath } from "./results.ts";

const EXAMPLES = `
Examples:
  headrace bench report                                  the newest results
  headrace bench report results.jsonl                    writes results.html
  headrace bench report results.jsonl --out page.html
`;

/** The command, ready to be added to `bench`. */
export function benchReportCommand(): Command {
  return new Command("report")
    .description("Draw the results of a run as one HTML page that needs no network.")
    .argument("[results]", RESULTS_HELP)
    .option("--out <file>", "the page (default: beside the results, ending in .html)")
    .addHelpText("after", EXAMPLES)
    .action(report);
}

async function report(named: string | undefined, flags: { readonly out?: string }): Promise<void> {
  const results = resultsPath(named);
  const records = readRecords(results);
  // Loaded now and not before: what draws takes longer to load than a small dataset.
  const { renderReport } = await import("../bench/report.ts");
  const page = renderReport(records);
  const path = flags.out ?? pageBeside(results);
  saveText(path, page);
  console.log(`wrote ${printable(path)}: ${bytesText(Buffer.byteLength(page))}`);
}

function pageBeside(results: string): string {
  const ending = extname(results);
  return ending === "" || ending === ".html" ? `${results}.html` : `${results.slice(0, -ending.length)}.html`;
}
