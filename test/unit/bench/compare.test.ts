import { describe, expect, test } from "bun:test";
import { compareRuns } from "../../../src/bench/compare.ts";
import { renderComparison } from "../../../src/bench/compare-page.ts";
import { failedText, verdictText } from "../../../src/bench/compare-text.ts";
import type { BenchRecord } from "../../../src/bench/record.ts";
import { MACHINE, type MadeUp, madeUpRecords } from "./made-up.ts";

const compare = (a: readonly MadeUp[], b: readonly MadeUp[]) =>
  compareRuns(madeUpRecords(a, {}, 1), madeUpRecords(b, {}, 2));

describe("two runs", () => {
  test("of one thing show no clear difference", () => {
    const cells = [{ rate: 2, spread: 0.1 }];
    const { cells: found, counts, differences } = compare(cells, cells);
    expect(counts).toEqual({ faster: 0, slower: 0, unclear: 1 });
    expect(found[0]!.note).toBe("no clear difference");
    expect(found[0]!.ratio!.low).toBeLessThan(1);
    expect(found[0]!.ratio!.high).toBeGreaterThan(1);
    expect(differences).toEqual([]);
  });

  test("show what became faster and what slower, with intervals around the ratio", () => {
    const { cells } = compare(
      [{ rate: 1 }, { rate: 2, path: "map" }],
      [{ rate: 1.5 }, { rate: 1, path: "map" }],
    );
    expect(cells.map(({ verdict }) => verdict)).toEqual(["faster", "slower"]);
    for (const { ratio } of cells) {
      expect(ratio!.low).toBeLessThanOrEqual(ratio!.median);
      expect(ratio!.high).toBeGreaterThanOrEqual(ratio!.median);
    }
    expect(cells[0]!.ratio!.median).toBeCloseTo(1.5, 0);
    expect(cells[1]!.ratio!.median).toBeCloseTo(0.5, 0);
  });

  test("exchanged give the inverse", () => {
    const [a, b] = [madeUpRecords([{ rate: 1 }], {}, 3), madeUpRecords([{ rate: 1.4 }], {}, 4)];
    const there = compareRuns(a, b).cells[0]!.ratio!;
    const back = compareRuns(b, a).cells[0]!.ratio!;
    expect(there.median * back.median).toBeCloseTo(1, 9);
    expect(compareRuns(b, a).cells[0]!.verdict).toBe("slower");
  });

  test("with too few trials are not judged, however far apart", () => {
    const { cells } = compare([{ rate: 1, rounds: 2 }], [{ rate: 9 }]);
    expect(cells[0]).toMatchObject({
      verdict: "unclear",
      note: "too few trials: 2 and 7, of 3 that it takes",
    });
    expect(cells[0]!.ratio).toBeUndefined();
  });

  test("have cells alone", () => {
    const { cells, onlyA, onlyB } = compare(
      [{ rate: 1, lanes: 1 }, { rate: 1 }],
      [{ rate: 1, lanes: 2 }, { rate: 1 }],
    );
    expect(cells).toHaveLength(1);
    expect(onlyA.map(({ lanes }) => lanes)).toEqual([1]);
    expect(onlyB.map(({ lanes }) => lanes)).toEqual([2]);
  });

  test("compare a peer with its next version, and say so", () => {
    const peer = (version: string) => [{ rate: 1, path: "peer", peer: `pyarrow ${version} (Python)` }];
    const { cells } = compare(peer("23.0.1"), peer("24.0.0"));
    expect(cells[0]!.note).toMatch(/^pyarrow 23\.0\.1 \(Python\) against pyarrow 24\.0\.0 \(Python\)/);
    expect(compare(peer("1"), [{ rate: 1, path: "peer", peer: "mlx 1" }]).cells).toEqual([]);
  });

  test("over other data say so", () => {
    const b = madeUpRecords([{ rate: 1 }], {}, 2).map((record) =>
      record.kind === "trial" ? { ...record, checksum: "feed" } : record,
    );
    expect(compareRuns(madeUpRecords([{ rate: 1 }]), b).cells[0]!.note).toMatch(/the checksums differ/);
  });

  test("tell what differs of machine, versions and settings, and not what changes by the minute", () => {
    const a = madeUpRecords([{ rate: 1 }]);
    const b = madeUpRecords([{ rate: 1 }], {
      machine: { ...MACHINE, cpu: "Apple M3 Max", cores: 16, memoryFreeBytes: 1, load: 0.2 },
      versions: { headrace: "0.2.0", bun: "1.4.5" },
      settings: { rounds: 9, bytes: 1_000_000_000, prefetch: 2, formats: ["arrow"] },
    });
    expect(compareRuns(a, b).differences).toEqual([
      { what: "cpu", a: "AMD EPYC 9B45", b: "Apple M3 Max" },
      { what: "cores", a: "2", b: "16" },
      { what: "headrace", a: "0.1.0", b: "0.2.0" },
      { what: "libzstd", a: "1.5.4", b: "-" },
      { what: "rounds", a: "7", b: "9" },
      { what: "formats", a: "safetensors, arrow", b: "arrow" },
    ]);
    const busy = madeUpRecords([{ rate: 1 }], { machine: { ...MACHINE, load: 3 } });
    expect(compareRuns(a, busy).differences).toEqual([{ what: "load when it began", a: "0.1", b: "3" }]);
  });
});

test("trials that failed are told of in both runs, with the first reason", () => {
  const fail = (records: BenchRecord[], rounds: readonly number[]) =>
    records.map((record) =>
      record.kind === "trial" && rounds.includes(record.round)
        ? { ...record, error: `ENOENT in round ${record.round}` }
        : record,
    );
  const a = fail(madeUpRecords([{ rate: 1 }]), [-1, 3]);
  const b = fail(madeUpRecords([{ rate: 1 }], {}, 2), [0]);
  const comparison = compareRuns(a, b);
  expect(comparison.failed.map(({ run, count, error }) => [run, count, error])).toEqual([
    ["A", 2, "ENOENT in round -1"],
    ["B", 1, "ENOENT in round 0"],
  ]);
  expect(failedText(comparison.failed[0]!)).toMatch(/^A: 2 trials failed: weights\|.*: ENOENT in round -1$/);
  expect(renderComparison(comparison)).toContain("ENOENT in round 0");
  expect(renderComparison(compareRuns(b, b))).not.toContain("ENOENT in round -1");
  expect(compare([{ rate: 1 }], [{ rate: 1 }]).failed).toEqual([]);
  // A run that was gone on with made its failure good.
  const again = b.flatMap((record) =>
    record.kind === "trial" && record.error !== undefined
      ? [record, { ...record, error: undefined }]
      : [record],
  );
  expect(compareRuns(a, again).failed.map(({ run }) => run)).toEqual(["A"]);
});

test("runs without a cell in common are told what keeps them apart", () => {
  const host: MadeUp[] = [{ rate: 1 }, { rate: 1, path: "map" }];
  const cuda: MadeUp[] = [{ rate: 1, device: "cuda", temperature: "warm" }];
  expect(verdictText(compare(host, cuda))).toBe(
    "The runs have no cell in common: temperature cold in A, warm in B; device host in A, cuda in B. Measure both with the same options to compare them.",
  );
  expect(verdictText(compare([{ rate: 1 }], [{ rate: 1, lanes: 2 }]))).toStartWith(
    "The runs have no cell in common. Measure",
  );
});

test("verdicts in words", () => {
  const none = { faster: 0, slower: 0, unclear: 0 };
  expect(verdictText({ counts: none, onlyA: [], onlyB: [] })).toBe(
    "The runs have no cell in common. Measure both with the same options to compare them.",
  );
  const counts = { faster: 3, slower: 1, unclear: 1 };
  expect(verdictText({ counts, onlyA: [], onlyB: [] })).toBe(
    "B against A: of 5 cells 3 faster, 1 slower, 1 without a clear difference.",
  );
});

test("settings that differ are told in words, where these differ too", () => {
  const differ = (a: Record<string, number | string[]>, b: Record<string, number | string[]>) =>
    compareRuns(madeUpRecords([{ rate: 1 }], { settings: a }), madeUpRecords([{ rate: 1 }], { settings: b }))
      .differences;
  expect(differ({ byteLength: 256e6, peers: [] }, { byteLength: 1e9, peers: ["pyarrow"] })).toEqual([
    { what: "bytes of each kind of data", a: "256 MB", b: "1.00 GB" },
    { what: "readers of other projects", a: "none", b: "pyarrow" },
  ]);
  expect(differ({ byteLength: 256_000_000 }, { byteLength: 256_000_001 })).toEqual([
    { what: "bytes of each kind of data", a: "256000000", b: "256000001" },
  ]);
});
