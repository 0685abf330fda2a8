/** Sampling options: what they are without a word, what is refused, and how a row's parameters are laid out. */
import { describe, expect, test } from "bun:test";
import type { SamplingOptions } from "../../../src/infer/engine.ts";
import {
  needsSeen,
  resolveSampling,
  sampleParamsView,
  writeSampleParams,
} from "../../../src/infer/sampling.ts";
import { SAMPLE_PARAMS_BYTES } from "../../../src/kernels/sample.ts";
import { expectCode } from "../../conformance/harness.ts";

describe("options", () => {
  test("are greedy without a word", () => {
    const plain = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };
    expect(resolveSampling()).toEqual(plain);
    expect(resolveSampling({ temperature: undefined, seed: undefined })).toEqual(plain);
    expect(resolveSampling({ topK: 5, seed: 2 ** 53 - 1 })).toEqual({ ...plain, topK: 5, seed: 2 ** 53 - 1 });
  });

  test.each([
    [
      { temperature: -0.1 },
      "temperature is -0.1; it must be 0, which is greedy, or a number from 0.000001 to 1000000",
    ],
    [{ temperature: 1e-7 }, "temperature is 1e-7"],
    [{ temperature: Number.POSITIVE_INFINITY }, "temperature is Infinity"],
    [{ temperature: Number.NaN }, "temperature is NaN"],
    [{ temperature: "1" as unknown as number }, "temperature is 1"],
    [{ topK: -1 }, "topK is -1; it must be a whole number from 0 to 9007199254740991"],
    [{ topK: 1.5 }, "topK is 1.5"],
    [{ topP: 1.01 }, "topP is 1.01; it must be a number above 0, and at most 1"],
    [{ topP: 0 }, "topP is 0"],
    [{ topP: Number.NaN }, "topP is NaN"],
    [{ minP: -0.01 }, "minP is -0.01; it must be a number from 0 to 1"],
    [{ minP: 1.1 }, "minP is 1.1"],
    [{ repetitionPenalty: 0 }, "repetitionPenalty is 0; it must be a number from 0.000001 to 1000000"],
    [{ repetitionPenalty: -1 }, "repetitionPenalty is -1"],
    [{ seed: -1 }, "seed is -1; it must be a whole number from 0 to 9007199254740991"],
    [{ seed: 2 ** 53 }, "seed is 9007199254740992"],
    [{ seed: 0.5 }, "seed is 0.5"],
  ] as const)("refuse %j", (options, message) => {
    expect(expectCode("BAD_OPTION", () => resolveSampling(options)).message).toStartWith(message);
  });

  test("need to know what a sequence holds for the penalty alone", () => {
    expect(needsSeen(resolveSampling({ temperature: 1, topK: 3 }))).toBe(false);
    expect(needsSeen(resolveSampling({ repetitionPenalty: 1.1 }))).toBe(true);
  });
});

describe("a row's parameters", () => {
  const written = (options: SamplingOptions, row = {}) => {
    const memory = new ArrayBuffer(16 + 3 * SAMPLE_PARAMS_BYTES);
    new Uint8Array(memory).fill(0xee);
    const sampled = { slot: 3, row: 5, step: 7, logprob: false, ...row };
    writeSampleParams(sampleParamsView(memory, 16, 3), 1, resolveSampling(options), sampled);
    const bytes = new Uint8Array(memory);
    const around = [
      bytes.subarray(0, 16 + SAMPLE_PARAMS_BYTES),
      bytes.subarray(16 + 2 * SAMPLE_PARAMS_BYTES),
    ];
    expect(around.every((part) => part.every((byte) => byte === 0xee))).toBe(true);
    const view = new DataView(memory, 16 + SAMPLE_PARAMS_BYTES, SAMPLE_PARAMS_BYTES);
    const word = (index: number) => view.getUint32(4 * index, true);
    const float = (index: number) => view.getFloat32(4 * index, true);
    return {
      ...{ slot: word(0), flags: word(1), inverseTemperature: float(2), topK: word(3), topP: word(4) },
      ...{
        minP: word(5),
        penalty: float(6),
        seed: [word(7), word(8)],
        row: [word(9), word(10)],
        step: word(11),
      },
    };
  };

  test("say nothing for a greedy row but who it is", () => {
    expect(written({})).toEqual({
      ...{ slot: 3, flags: 0, inverseTemperature: 1, topK: 0, topP: 0, minP: 0, penalty: 1 },
      ...{ seed: [0, 0], row: [5, 0], step: 7 },
    });
  });

  test("hold what the options say", () => {
    const options = { temperature: 0.5, topK: 40, topP: 0.75, minP: 0.25, repetitionPenalty: 1.5 };
    const row = { row: 2 ** 53 - 1, logprob: true };
    expect(written({ ...options, seed: 2 ** 40 + 9 }, row)).toEqual({
      ...{
        slot: 3,
        flags: 7,
        inverseTemperature: 2,
        topK: 40,
        topP: 3 * 2 ** 30,
        minP: 2 ** 29,
        penalty: 1.5,
      },
      ...{ seed: [9, 256], row: [2 ** 32 - 1, 2 ** 21 - 1], step: 7 },
    });
  });

  test("fit their words at the ends of their ranges", () => {
    expect(written({ temperature: 1, topP: 1e-12, minP: 1, topK: 2 ** 40 })).toMatchObject({
      ...{ flags: 1, topP: 1, minP: 2 ** 31, topK: 2 ** 32 - 1 },
    });
    expect(written({ temperature: 1, topP: 1 - 2 ** -50 })).toMatchObject({ topP: 2 ** 32 - 1 });
    expect(written({ temperature: 1e-6 }).inverseTemperature).toBe(1e6);
  });
});
