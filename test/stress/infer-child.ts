/** `bun test/stress/infer-child.ts SOURCE OUT`: a job to be killed at any moment. Says `begun` once it runs rows. */
import { infer, openDevice } from "../../src/index.ts";
import { echoEngine } from "../infer/echo-engine.ts";

const [source, out] = process.argv.slice(2) as [string, string];
await using device = openDevice("host");
let begun = false;
const engine = echoEngine({
  slots: 8,
  stepMs: 1,
  fails: new Map([17, 801, 2002].map((row) => [row, { message: "cannot be done", retry: false }])),
  onStart() {
    if (!begun) console.log("begun");
    begun = true;
  },
});
await infer({ source, out, device, engine: { engine, name: "echo" }, maxNewTokens: 5 });
