/** Which Worker gets what, and what becomes of the rest when one dies. */
import { expect, test } from "bun:test";
import { WorkerPool } from "../../../src/codec/worker-pool.ts";

/** Workers that answer when they are told to; `"uncloneable"` cannot be given to them. */
function pool(numThreads: number) {
  const given: string[][] = [];
  const workers: Worker[] = [];
  const ended: number[] = [];
  const start = () => {
    const work: string[] = [];
    given.push(work);
    const postMessage = (one: string) => {
      if (one === "uncloneable") throw new DOMException("it cannot be cloned", "DataCloneError");
      work.push(one);
    };
    const worker = { postMessage } as unknown as Worker;
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

test("work that cannot be given to a thread fails alone, and answers still go to those who wait for them", async () => {
  const { made, given, ended, answer } = pool(1);
  const a = made.run("a", []);
  const lost = made.run("uncloneable", []);
  const b = made.run("b", []);
  await expect(lost).rejects.toMatchObject({
    code: "DEVICE_FAILED",
    message: "a thread that plays was not given its work: it cannot be cloned",
    cause: { name: "DataCloneError" },
  });
  answer(0, "A");
  answer(0, "B");
  expect(await Promise.all([a, b])).toEqual(["A", "B"]);
  expect({ given, ended }).toEqual({ given: [["a", "b"]], ended: [] });
});

test("a buffer that is gone rejects on a Worker of Bun's own too", async () => {
  const source = URL.createObjectURL(
    new Blob(["self.onmessage = ({ data }) => self.postMessage(data + 1);"]),
  );
  const end = (worker: Worker) => void worker.terminate();
  const made = new WorkerPool<unknown, number>({ does: "counts", start: () => new Worker(source), end }, 1);
  const gone = new ArrayBuffer(8);
  gone.transfer();
  const lost = made.run(gone, [gone]);
  const three = made.run(2, []);
  await expect(lost).rejects.toMatchObject({ code: "DEVICE_FAILED" });
  expect(await three).toBe(3);
  made.close();
  URL.revokeObjectURL(source);
});
