/** The mock's NVRTC, and the modules that come of it. */
import { beforeEach, describe, expect, test } from "bun:test";
import { portableHeader } from "../../../src/kernels/portable.ts";
import { int, made, text } from "../../cuda-mock/symbols.ts";
import { noMock, pointers, reason, u64, useMock } from "./rig.ts";

/** A compiler has to start. */
const SLOW = 60_000;

describe.skipIf(noMock)(`compiling in the mock of CUDA${reason}`, () => {
  const rig = useMock();
  beforeEach(() => void rig.context());

  test(
    "errors are told as NVRTC tells them, by the text's own lines",
    () => {
      const wrong = rig.compile(
        `${portableHeader}\nHR_KERNEL(k, HR_OUT(0, uint32_t, to)) {\n  to[0] = nothing;\n}\n`,
      );
      expect(wrong.code).toBe(6);
      expect(wrong.log).toContain("kernel(3): error: ");
      expect(wrong.log).toContain("'nothing'");
      expect(wrong.log).toContain('1 error detected in the compilation of "kernel.cu"');
      expect(rig.cuda.nvrtcGetPTXSize(wrong.program, new BigUint64Array(1))).toBe(4);
      const bad = rig.compile("#error of ours\n");
      expect(bad.code).toBe(6);
      expect(bad.log).toContain("kernel.cu(1): error: ");
      expect(rig.compile("#include <stdint.h>\n").code).toBe(6);
      expect(rig.compile("int a;", ["--no-such-option"]).code).toBe(5);
      expect(rig.compile("int a;", ["--gpu-architecture=9"]).code).toBe(5);
      expect(rig.compile("#if A != 3\n#error A\n#endif\n", ["-DA=3"]).code).toBe(0);
      expect(rig.cuda.nvrtcDestroyProgram(pointers([77]))).toBe(4);
      expect(rig.mock.live().programs).toBe(6);
    },
    SLOW,
  );

  test(
    "modules: texts that are none, devices that are too old, names, handles",
    () => {
      const out = new BigUint64Array(1);
      const source = `extern "C" __global__ void nothing() {}
        __global__ void mangled() {}`;
      const { program } = rig.compile(source, ["--gpu-architecture=compute_90"]);
      const ptx = rig.ptx(program);
      expect(rig.cuda.cuModuleLoadData(out, text("not a module"))).toBe(218);
      rig.mock.configure({ attributes: { 75: 8 } });
      expect(rig.cuda.cuModuleLoadData(out, ptx)).toBe(209);
      rig.mock.configure({ attributes: { 75: 9 } });
      const module = made((at) => rig.cuda.cuModuleLoadData(at, ptx));
      expect(rig.cuda.cuModuleGetFunction(out, module, text("other"))).toBe(500);
      expect(rig.cuda.cuModuleGetFunction(out, module, text("mangled"))).toBe(500);
      const nothing = rig.kernel(module, "nothing");
      expect(rig.launch(nothing, 1, 1, [])).toBe(0);
      expect(rig.cuda.cuCtxSynchronize()).toBe(0);
      expect(rig.cuda.cuModuleUnload(module)).toBe(0);
      expect(rig.cuda.cuModuleUnload(module)).toBe(400);
      expect(rig.launch(nothing, 1, 1, [])).toBe(400);
      expect(rig.mock.live().modules).toBe(0);
    },
    SLOW,
  );

  test(
    "machine code is for one major version, and PTX for drivers that are new enough",
    () => {
      const { cuda, mock } = rig;
      const out = new BigUint64Array(1);
      const source = `extern "C" __global__ void nothing() {}`;
      const count = int((at) => cuda.nvrtcGetNumSupportedArchs(at));
      const known = new Int32Array(count);
      expect(cuda.nvrtcGetSupportedArchs(known)).toBe(0);
      expect([...known]).toContain(90);
      expect(rig.compile(source, ["--gpu-architecture=compute_50"]).code).toBe(5);
      const portable = rig.compile(source).program;
      expect(made((at) => cuda.nvrtcGetCUBINSize(portable, at))).toBe(0);
      const exact = rig.compile(source, ["--gpu-architecture=sm_80"]).program;
      const cubin = new Uint8Array(made((at) => cuda.nvrtcGetCUBINSize(exact, at)));
      expect(cuda.nvrtcGetCUBIN(exact, cubin)).toBe(0);
      expect(cuda.cuModuleLoadData(out, cubin)).toBe(209);
      mock.configure({ attributes: { 75: 8, 76: 6 }, driverVersion: 12_040 });
      expect(cuda.cuModuleLoadData(out, cubin)).toBe(0);
      expect(cuda.cuModuleLoadData(out, rig.ptx(portable))).toBe(222);
      mock.configure({ nvrtcMajor: 12, nvrtcMinor: 4 });
      expect(cuda.cuModuleLoadData(out, rig.ptx(rig.compile(source).program))).toBe(0);
    },
    SLOW,
  );

  test(
    "multiplications and additions are contracted unless that is forbidden",
    () => {
      const source = `extern "C" __global__ void contract(float *at) { at[3] = at[0] * at[1] + at[2]; }`;
      const [a, b] = [1 + 2 ** -12, 1 + 2 ** -12];
      const c = -Math.fround(a * b);
      const run = (fmad: string) => {
        const at = rig.upload(new Uint8Array(new Float32Array([a, b, c, 7]).buffer));
        const contract = rig.kernel(
          rig.load(source, ["--gpu-architecture=compute_80", `--fmad=${fmad}`]),
          "contract",
        );
        expect(rig.launch(contract, 1, 1, [u64(at)])).toBe(0);
        return new Float32Array(rig.download(at, 16).buffer)[3];
      };
      expect(run("false")).toBe(0);
      // A machine without the instruction rounds twice, whatever it may do.
      expect([0, a * b + c]).toContain(run("true")!);
    },
    SLOW,
  );

  test(
    "processes that compile one text at the same time do not meet",
    async () => {
      const source = `extern "C" __global__ void race_${process.pid}_${Date.now()}() {}`;
      const script = `
        import { buildCudaMock } from "${import.meta.dir}/../../cuda-mock/mock.ts";
        import { addressOf, bindCuda, made, text } from "${import.meta.dir}/../../cuda-mock/symbols.ts";
        const cuda = bindCuda(buildCudaMock().path);
        const program = made((out) => cuda.nvrtcCreateProgram(out, text(${JSON.stringify(source)}), null, 0, null, null));
        process.exit(cuda.nvrtcCompileProgram(program, 0, null));`;
      const racing = [1, 2, 3].map(() => Bun.spawn([process.execPath, "-e", script]).exited);
      expect(await Promise.all(racing)).toEqual([0, 0, 0]);
    },
    SLOW,
  );
});
