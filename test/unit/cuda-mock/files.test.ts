/** cuFile in the mock of CUDA: between files and device memory. */
import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { openLibc } from "../../../src/device/host/libc.ts";
import { noMock, PAGE, reason, useMock } from "./rig.ts";

describe.skipIf(noMock)(`cuFile in the mock of CUDA${reason}`, () => {
  const rig = useMock();
  const folder = mkdtempSync(join(tmpdir(), "cuda-mock-"));
  const path = join(folder, "file");
  let fd = -1;

  beforeEach(() => {
    if (fd >= 0) closeSync(fd);
    writeFileSync(
      path,
      Uint8Array.from({ length: 3000 }, (_, i) => i * 3),
    );
    fd = openSync(path, "r+");
    rig.context();
  });
  afterAll(() => {
    if (fd >= 0) closeSync(fd);
    rmSync(folder, { recursive: true });
  });

  /** cuFile's code, of what comes in one register with CUDA's. */
  const code = (answer: bigint) => Number(answer & 0xffffffffn);
  /** The code, and the handle. */
  function register(descriptor: number, type = 1): readonly [number, number] {
    const description = new DataView(new ArrayBuffer(24));
    description.setInt32(0, type, true);
    description.setInt32(8, descriptor, true);
    const handle = new BigUint64Array(1);
    const answer = rig.cuda.cuFileHandleRegister(handle, new Uint8Array(description.buffer));
    return [code(answer), Number(handle[0])];
  }
  function opened(): number {
    expect(code(rig.cuda.cuFileDriverOpen())).toBe(0);
    const [answer, handle] = register(fd);
    expect(answer).toBe(0);
    return handle;
  }
  const read = (handle: number, base: number, bytes: number, inFile: number, inBuffer: number) =>
    Number(rig.cuda.cuFileRead(handle, base, bytes, inFile, inBuffer));

  test("moves bytes both ways, and fewer at the end of the file", () => {
    const handle = opened();
    const device = rig.allocate(2 * PAGE);
    expect(code(rig.cuda.cuFileBufRegister(device, 2 * PAGE, 0))).toBe(0);
    expect(code(rig.cuda.cuFileBufRegister(device, 2 * PAGE, 0))).toBe(5023);
    expect(read(handle, device, 100, 50, 8)).toBe(100);
    expect(read(handle, device, 2000, 2900, 1000)).toBe(100);
    expect(read(handle, device, 10, 3000, 0)).toBe(0);
    const got = rig.download(device, 1100);
    const file = readFileSync(path);
    expect(got.subarray(8, 108)).toEqual(new Uint8Array(file.subarray(50, 150)));
    expect(got.subarray(1000)).toEqual(new Uint8Array(file.subarray(2900)));
    expect(Number(rig.cuda.cuFileWrite(handle, device, 50, 2990, 8))).toBe(50);
    expect(readFileSync(path).subarray(2990)).toEqual(file.subarray(50, 100));
    expect(rig.mock.live()).toMatchObject({ fileHandles: 1, fileBuffers: 1, fileDriver: 1 });
    expect(code(rig.cuda.cuFileBufDeregister(device))).toBe(0);
    expect(code(rig.cuda.cuFileBufDeregister(device))).toBe(5024);
    rig.cuda.cuFileHandleDeregister(handle);
    expect(read(handle, device, 8, 0, 0)).toBe(-5027);
    expect(code(rig.cuda.cuFileDriverClose_v2())).toBe(0);
    expect(rig.mock.live()).toMatchObject({ fileHandles: 0, fileBuffers: 0, fileDriver: 0 });
  });

  test("refuses what it does not know", () => {
    expect(code(rig.cuda.cuFileDriverClose_v2())).toBe(5001);
    expect(register(fd)[0]).toBe(5001);
    const handle = opened();
    expect(register(fd)[0]).toBe(5028);
    expect(register(fd, 2)[0]).toBe(5022);
    const directory = openSync(folder, "r");
    expect(register(directory)[0]).toBe(5018);
    closeSync(directory);
    const device = rig.allocate(100);
    expect(read(handle, device, 101, 0, 0)).toBe(-5014);
    expect(read(handle, device, 50, 0, 60)).toBe(-5014);
    expect(read(handle, rig.host(PAGE).address, 50, 0, 0)).toBe(-5013);
    expect(read(handle, device, 50, -1, 0)).toBe(-5022);
    expect(code(rig.cuda.cuFileBufRegister(device, 101, 0))).toBe(5014);
  });

  test("is not there where it is configured away, and fails as asked", () => {
    rig.mock.configure({ gds: false });
    expect(code(rig.cuda.cuFileDriverOpen())).toBe(5007);
    rig.mock.configure({ gds: true });
    rig.mock.setFaults([
      { call: "cuFileDriverOpen", code: 5004 },
      { call: "cuFileRead", code: 5008 },
      { call: "cuFileRead", nth: 2, code: constants.errno.EIO },
    ]);
    expect(code(rig.cuda.cuFileDriverOpen())).toBe(5004);
    const handle = opened();
    const device = rig.allocate(100);
    expect(read(handle, device, 100, 0, 0)).toBe(-5008);
    expect(read(handle, device, 100, 0, 0)).toBe(-1);
    expect(openLibc().errno()).toBe(constants.errno.EIO);
    expect(read(handle, device, 100, 0, 0)).toBe(100);
    const properties = new Uint8Array(56);
    expect(code(rig.cuda.cuFileDriverGetProperties(properties))).toBe(0);
    expect(properties[0]).toBe(2);
    rig.mock.configure({ nvidiaFs: false });
    expect(code(rig.cuda.cuFileDriverGetProperties(properties))).toBe(0);
    expect(properties[0]).toBe(0);
  });
});
