/** One GPU in a process of its own: answers commands, a line of JSON each. `gpu-process.ts --ordinal N …` */
import { BareGpu } from "./bare.ts";
import { weights } from "./data.ts";
import { GpuHalf } from "./gpus-case.ts";
import { parseOptions } from "./options.ts";

const options = parseOptions(process.argv.slice(2));
const data = await weights(options.dataFolder, options.sizeBytes);
await using half = new GpuHalf(options, data, options.ordinal);
const bare = new BareGpu(options.ordinal);

const commands: Readonly<Record<string, () => Promise<number> | number>> = {
  load: () => half.rate(),
  link: () => bare.link(data.byteLength),
};

console.log(JSON.stringify({ gpu: bare.name }));
for await (const line of console) {
  const { op } = JSON.parse(line) as { op: string };
  try {
    console.log(JSON.stringify({ rate: await commands[op]!() }));
  } catch (error) {
    console.log(JSON.stringify({ error: error instanceof Error ? error.message : String(error) }));
  }
}
bare.close();
