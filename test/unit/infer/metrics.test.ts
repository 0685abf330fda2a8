/** What is measured of a job. */
import { describe, expect, test } from "bun:test";
import { Metrics } from "../../../src/infer/metrics.ts";

function counts() {
  return { promptTokens: 0, outputTokens: 0, putBacks: 0, retries: 0 };
}

describe("metrics", () => {
  test("are rates over the job's time, and means over the steps'", () => {
    const sums = counts();
    const metrics = new Metrics(4, sums, 0);
    metrics.begin(1000);
    metrics.step({ durationMs: 100, numRunning: 4, firstTokenMs: [100, 150] });
    metrics.step({ durationMs: 300, numRunning: 1, firstTokenMs: [] });
    metrics.wait("data", 50);
    metrics.wait("output", 25);
    metrics.row(false);
    metrics.row(true);
    Object.assign(sums, { promptTokens: 30, outputTokens: 12, putBacks: 3, retries: 2 });
    const seen = metrics.snapshot(1500);
    expect(seen).toMatchObject({
      seconds: 0.5,
      rows: 2,
      failedRows: 1,
      promptTokens: 30,
      outputTokens: 12,
      rowsPerSecond: 4,
      promptTokensPerSecond: 60,
      outputTokensPerSecond: 24,
      steps: 2,
      dataWaitShare: 0.1,
      outputWaitShare: 0.05,
      putBacks: 3,
      retries: 2,
    });
    // (100 ms × 4 + 300 ms × 1) of 400 ms × 4.
    expect(seen.occupancy).toBeCloseTo(700 / 1600, 12);
    expect(Math.abs(seen.stepMs.p50 - 300)).toBeLessThan(3);
    expect(Math.abs(seen.stepMs.p99 - 300)).toBeLessThan(3);
    expect(Math.abs(seen.firstTokenMs.p50 - 150)).toBeLessThan(1.5);
  });

  test("of an interval begin where the last one ended", () => {
    const sums = counts();
    const metrics = new Metrics(1, sums, 0);
    metrics.row(false);
    sums.outputTokens = 10;
    expect(metrics.interval(1000)).toMatchObject({ seconds: 1, rows: 1, outputTokens: 10 });
    metrics.wait("data", 500);
    // A row that failed takes its tokens back.
    sums.outputTokens = 6;
    expect(metrics.interval(2000)).toMatchObject({
      rows: 0,
      outputTokens: -4,
      dataWaitShare: 0.5,
      steps: 0,
      occupancy: 0,
      stepMs: { p50: 0, p99: 0 },
    });
    expect(metrics.snapshot(2000)).toMatchObject({
      seconds: 2,
      rows: 1,
      outputTokens: 6,
      dataWaitShare: 0.25,
    });
  });

  test("stand still once the job has ended, and are no NaN before it begins", () => {
    const metrics = new Metrics(1, counts(), 100);
    for (const value of Object.values(metrics.snapshot(100))) {
      if (typeof value === "number") expect(value).toBe(0);
    }
    metrics.row(false);
    metrics.end(200);
    metrics.end(900);
    expect(metrics.snapshot(5000)).toMatchObject({ seconds: 0.1, rowsPerSecond: 10 });
    expect(metrics.interval(5000).seconds).toBe(0.1);
  });
});
