/** Which Worker gets what, and what becomes of the rest when one dies. */
import { expect, test } from "bun:test";
import { WorkerPool } from "../../../src/codec/worker-pool.ts";

/** Workers that answer when they are told to. */
function pool(numThreads: number) {
  const given: string[][] = [];
  const workers: Worker[] = [];
  const ended: number[] = [];
  const start = () => {
    const work: string[] = [];
    given.push(work);
    const worker = { postMessage: (one: string) => work.push(one) } as unknown as Worker;
    workers.push(worker);
    return worker;
  };
  const end = (worker: Worker) => void ended.push(workers.indexOf(worker));
  const made = new WorkerPool<string, string>({ does: "plays", start, end }, numThreads);
  const answer = (i: number, data: string) => workers[i]!.onmessage!({ data } as MessageEvent);
  const die = (i: number) => workers[i]!.onerror!({ message: "boom\n at x" } as ErrorEvent);
  return { made, given, ended, answer, die };
}

test("work goes to the one that has least of it, and new ones start while there is any", async () => {
  const { made, given, answer } = pool(2);
  const a = made.run("a", []);
  answer(0, "A");
  expect(await a).toBe("A");
  const b = made.run("b", []);
  expect(given).toEqual([["a", "b"]]);
  const c = made.run("c", []);
  const d = made.run("d", []);
  expect(given).toEqual([["a", "b", "d"], ["c"]]);
  answer(0, "B");
  answer(1, "C");
  answer(0, "D");
  expect(await Promise.all([b, c, d])).toEqual(["B", "C", "D"]);
});

test("when one dies, all that waits fails, all threads end, and so does what comes after", async () => {
  const { made, ended, die } = pool(2);
  const works = [made.run("a", []), made.run("b", [])];
  die(1);
  works.push(made.run("c", []));
  for (const work of works) {
    await expect(work).rejects.toMatchObject({
      code: "DEVICE_FAILED",
      message: "a thread that plays has died: boom",
    });
  }
  made.close();
  expect(ended).toEqual([0, 1]);
});

test("closing fails what waits, once", async () => {
  const { made, ended } = pool(1);
  const work = made.run("a", []);
  made.close();
  made.close();
  await expect(work).rejects.toMatchObject({ code: "CLOSED" });
  await expect(made.run("b", [])).rejects.toMatchObject({ code: "CLOSED" });
  expect(ended).toEqual([0]);
});
