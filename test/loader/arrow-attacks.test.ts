/** Every file of `test/attacks/arrow` is answered by its code, soon, and with a message of one short line. */
import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { ATTACKS } from "../attacks/arrow/attacks.ts";
import { collect, expectCode, useTempDir } from "./helpers.ts";

const temp = useTempDir();

test.each(ATTACKS)("$name: $harm", async ({ name, code, make }) => {
  const path = temp(`${name}.arrow`);
  writeFileSync(path, make());
  const started = performance.now();
  const load = () => collect(path, { batchSize: 128 });
  if (code === "ok") expect((await load()).length).toBeGreaterThan(0);
  else {
    const message = await expectCode(code, load, path);
    expect(message.length).toBeLessThan(700);
  }
  // Measured in tens of milliseconds at worst; loose for slow machines.
  expect(performance.now() - started).toBeLessThan(10_000);
});
