import { expect, test } from "bun:test";
import { openDevice } from "../../src/device/open.ts";
import { cudaMock, cudaSubjects } from "./cuda-subjects.ts";
import type { InjectedFault, Subject } from "./harness.ts";
import { metalLibrary, metalSubjects } from "./metal-subjects.ts";
import { deviceSuite } from "./suite.ts";

const SUBJECTS: readonly Subject[] = [
  {
    name: "host",
    movesData: true,
    runsHostKernels: true,
    open: () => openDevice("host"),
    openWithFaults: (faults: readonly InjectedFault[]) => openDevice("host", { faults }),
  },
  {
    name: "host with one lane",
    movesData: true,
    runsHostKernels: true,
    open: () => openDevice("host", { lanes: 1 }),
    openWithFaults: (faults: readonly InjectedFault[]) => openDevice("host", { lanes: 1, faults }),
  },
  {
    name: "host with a tiny ring and tiny pieces",
    movesData: true,
    runsHostKernels: true,
    open: () => openDevice("host", { lanes: 2, ringEntries: 16, pieceBytes: 8192, inlineCopyBytes: 0 }),
  },
  { name: "null", movesData: false, runsHostKernels: true, open: () => openDevice("null") },
];

for (const subject of SUBJECTS) deviceSuite(subject);

const metal = metalSubjects();
for (const subject of metal) deviceSuite(subject);
const library = metalLibrary();
const reason = "missing" in library ? ` (left out: ${library.missing})` : "";
test.skipIf(metal.length === 0)(`device metal is tried${reason}`, () => {
  expect(metal.length).toBeGreaterThan(2);
});

for (const subject of cudaSubjects()) deviceSuite(subject);
const mock = cudaMock();
const noMock = "missing" in mock ? ` (left out: ${mock.missing})` : "";
test.skipIf("missing" in mock)(`device cuda leaves nothing in the driver${noMock}`, () => {
  if ("missing" in mock) return;
  // What a device leaves to its context's end is gone with it.
  const { abandoned: _, ...live } = mock.mock.live();
  expect(Object.entries(live).filter(([, count]) => count !== 0)).toEqual([]);
  expect(mock.mock.reports().filter((report) => !report.startsWith("a context was destroyed"))).toEqual([]);
});
