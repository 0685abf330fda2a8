/** Workers that make and sum up data, one a core. */
import { availableParallelism } from "node:os";
import type { DataTask } from "./data-worker.ts";

const MOST = 32;

/** Runs tasks side by side. Close it. */
export class Team implements Disposable {
  readonly #workers: readonly Worker[];

  constructor(count = Math.min(MOST, availableParallelism())) {
    this.#workers = Array.from(
      { length: count },
      () => new Worker(new URL("./data-worker.ts", import.meta.url).href),
    );
  }

  /** The answers, in the order of the tasks. Rejects with the first failure. */
  async run<R>(tasks: readonly DataTask[]): Promise<R[]> {
    const answers: R[] = new Array(tasks.length);
    let next = 0;
    const work = async (worker: Worker) => {
      for (let i = next++; i < tasks.length; i = next++) answers[i] = await ask<R>(worker, tasks[i]!);
    };
    await Promise.all(this.#workers.map(work));
    return answers;
  }

  [Symbol.dispose](): void {
    for (const worker of this.#workers) worker.terminate();
  }
}

function ask<R>(worker: Worker, task: DataTask): Promise<R> {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }: MessageEvent<{ answer: R } | { error: string }>) =>
      "error" in data ? reject(new Error(data.error)) : resolve(data.answer);
    worker.onerror = (event) => reject(new Error(event.message));
    worker.postMessage(task);
  });
}
