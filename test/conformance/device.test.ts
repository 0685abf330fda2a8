import { openDevice } from "../../src/device/open.ts";
import type { InjectedFault, Subject } from "./harness.ts";
import { deviceSuite } from "./suite.ts";

const SUBJECTS: readonly Subject[] = [
  {
    name: "host",
    movesData: true,
    open: () => openDevice("host"),
    openWithFaults: (faults: readonly InjectedFault[]) => openDevice("host", { faults }),
  },
  {
    name: "host with one lane",
    movesData: true,
    open: () => openDevice("host", { lanes: 1 }),
    openWithFaults: (faults: readonly InjectedFault[]) => openDevice("host", { lanes: 1, faults }),
  },
  {
    name: "host with a tiny ring and tiny pieces",
    movesData: true,
    open: () => openDevice("host", { lanes: 2, ringEntries: 16, pieceBytes: 8192, inlineCopyBytes: 0 }),
  },
  { name: "null", movesData: false, open: () => openDevice("null") },
];

for (const subject of SUBJECTS) deviceSuite(subject);
