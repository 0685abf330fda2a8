/** The data of a run, and what its trials are told of it. */
import type { PreparedData, StoredForm } from "./data/forms.ts";
import { type DataSource, prepareData } from "./data/prepare.ts";
import { prepareRehearsal } from "./data/rehearsal.ts";
import type { BenchHooks } from "./hooks.ts";
import { type Cell, cellsOf, formatsOf } from "./matrix.ts";
import type { PlacedPlan } from "./options.ts";
import { seedFor } from "./random.ts";
import type { RehearsalSpec, TrialSpec } from "./spec.ts";
import { writeFailure } from "./write-failure.ts";

/** A dataset, and what is read before it; nothing where rehearsals are left out. */
interface Prepared {
  readonly data: PreparedData;
  readonly rehearsal?: PreparedData | undefined;
}

/** All data of one run, on disk in the forms that its plan wants. */
export class Datasets {
  readonly #plan: PlacedPlan;
  readonly #all: readonly Prepared[];

  private constructor(plan: PlacedPlan, all: readonly Prepared[]) {
    this.#plan = plan;
    this.#all = all;
  }

  /** Makes what is not there yet. Throws `DISK_FULL` and `IO_ERROR` of its folder, and else as {@link prepareData} does. */
  static async prepare(plan: PlacedPlan, { signal, onEvent }: BenchHooks): Promise<Datasets> {
    const { source, data, byteLength, seed, folder, rehearsalBytes } = plan;
    const sources: DataSource[] =
      source === undefined ? data.map((kind) => ({ kind, byteLength, seed })) : [{ own: source }];
    const all: Prepared[] = [];
    for (const one of sources) {
      const formats = formatsOf(plan, "kind" in one ? one.kind : undefined);
      const onStep = (text: string) => onEvent({ kind: "step", text });
      const options = { folder, formats, signal, onStep };
      const said = { ...options, onStep: (text: string) => onStep(`for rehearsals: ${text}`) };
      try {
        const prepared = await prepareData(one, options);
        const rehearsal =
          rehearsalBytes === 0 ? undefined : await prepareRehearsal(one, prepared, rehearsalBytes, said);
        all.push({ data: prepared, rehearsal });
      } catch (cause) {
        throw writeFailure(folder, cause, "name another folder by --data-folder");
      }
    }
    return new Datasets(plan, all);
  }

  /** Every cell of the run over this data. */
  cells(): Cell[] {
    const { source, data } = this.#plan;
    const kindOf = (name: string) => (source === undefined ? data.find((kind) => kind === name) : undefined);
    return cellsOf(
      this.#plan,
      this.#all.map(({ data: { name, facts } }) => ({ name, kind: kindOf(name), tensors: facts.tensors })),
    );
  }

  /** Files to measure ceilings with, and about the bytes of a sample in them; undefined where nothing could be stored. */
  sample(): { readonly paths: readonly string[]; readonly sampleBytes: number } | undefined {
    const { forms, facts } = this.#all[0]!.data;
    const form = [...forms.values()].find((one) => typeof one !== "string");
    return form && { paths: form.paths, sampleBytes: facts.bytes / facts.numSamples };
  }

  /** Bytes that a trial of `cell` delivers. */
  bytesOf({ data }: Cell): number {
    return this.#all[data]!.data.facts.bytes;
  }

  /** Why `cell` cannot be measured over its data, where it cannot. */
  reasonAgainst({ key, data }: Cell): string | undefined {
    const { forms, facts } = this.#all[data]!.data;
    const form = forms.get(key.format);
    if (typeof form === "string") return form;
    const others = ["js-read", "apache-arrow", "peer"].includes(key.path);
    return others && !facts.plain
      ? "other readers are measured with one column of numbers, or tensors, alone"
      : undefined;
  }

  /** What the trial of a cell in a round is told. `memoryGroup` is the list of processes of a group that it joins. */
  specOf(
    { key, format, data }: Cell,
    { round, busy, memoryGroup }: { round: number; busy: boolean; memoryGroup?: string | undefined },
  ): TrialSpec {
    const { batchBytes, prefetch, seed, computeMs, ordinal } = this.#plan;
    const { data: prepared, rehearsal } = this.#all[data]!;
    const { facts } = prepared;
    const form = storedIn(prepared, key.format);
    if (form === undefined) throw new TypeError(`${key.id} has no files`);
    const tensors = facts.tensors && format.base === "safetensors";
    const rehearsed = rehearsalIn(rehearsal, key.format);
    return {
      cell: key,
      round,
      paths: form.paths,
      fileBytes: form.fileBytes,
      bytes: facts.bytes,
      numSamples: facts.numSamples,
      tensors,
      sums: (tensors ? facts.tensorSums : undefined) ?? facts.rowSums,
      batchBytes,
      prefetch,
      seed: seedFor(seed, `order ${round}`),
      ...(format.codec === "zstd" ? { container: "zst" } : {}),
      ...(facts.columns === undefined ? {} : { columns: facts.columns }),
      ...(busy ? { computeMs } : {}),
      ...(ordinal === undefined || key.device !== "cuda" ? {} : { ordinal }),
      ...(rehearsed === undefined ? {} : { rehearsal: rehearsed }),
      ...(memoryGroup === undefined ? {} : { memoryGroup }),
    };
  }
}

function storedIn({ forms }: PreparedData, format: string): StoredForm | undefined {
  const form = forms.get(format);
  return typeof form === "string" ? undefined : form;
}

/** What is read of a rehearsal's data in one form; undefined where it is not there in that. */
function rehearsalIn(data: PreparedData | undefined, format: string): RehearsalSpec | undefined {
  const form = data && storedIn(data, format);
  if (data === undefined || form === undefined) return undefined;
  const { bytes, numSamples, columns } = data.facts;
  return { paths: form.paths, bytes, numSamples, ...(columns === undefined ? {} : { columns }) };
}
