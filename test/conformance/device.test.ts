import { expect, test } from "bun:test";
import { openDevice } from "../../src/device/open.ts";
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
