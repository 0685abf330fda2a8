/**
 * Makes an output shard of its attempt file, in a file under a temporary name.
 *
 * The attempt is read in order, as often as `memoryBytes` makes it necessary: once to learn how long each value is, from
 * which the whole layout follows, and then once for each stretch of rows, of which only the part of the attempt that
 * holds them is read. Rows that come about in order make that two times in all.
 */
import { type FileLayout, fixedPlaces, rowBytesOf } from "../../format/output-layout.ts";
import type { OpenedFile } from "./files.ts";
import type { OpenOutput } from "./output.ts";
import { StretchWriter } from "./stretches.ts";
import {
  type AssembleOptions,
  type FailedRow,
  groupsOf,
  PLACED,
  type Survey,
  surveyAttempt,
} from "./survey.ts";

/** What was made. */
export interface Assembled {
  readonly byteLength: number;
  /** In the order of the file. */
  readonly failed: readonly FailedRow[];
}

/** Writes the whole shard to `part`, which holds what a device has placed in it already; makes it durable. `attempt` is
 * absent for a shard without rows. `copy` opens a second file where placed values must move. Returns which of the two is
 * the shard. Throws what writing throws, and `FILE_CHANGED` where the attempt no longer holds all rows. */
export async function assembleOutput(
  output: OpenOutput,
  attempt: OpenedFile | undefined,
  part: OpenedFile,
  copy: () => Promise<OpenedFile>,
  options: AssembleOptions,
): Promise<Assembled & { readonly file: OpenedFile }> {
  const { format, fields } = options;
  const shared = output.name.shard.name;
  const survey = await surveyAttempt(output, attempt, options);
  const groups = await groupsOf(output.numRows, survey, options);
  const layout = format.layout(fields, shared, groups);
  const fixed = fixedPlaces(format, fields, shared, output.numRows);
  let file = part;
  if (output.hasPlaced && groups.length > 1) {
    file = await copy();
    await file.truncate(0);
    await movePlaced(part, file, fixed.fields, layout, survey, options);
  } else await part.truncate(output.hasPlaced ? fixed.end : 0);
  for (const { at, bytes } of layout.pieces) await file.write(bytes, at);
  const stretches = new StretchWriter(output, attempt, file, survey, options);
  for (const [i, group] of layout.groups.entries()) await stretches.writeGroup(group, groups[i]!);
  await file.truncate(layout.byteLength);
  await file.sync();
  return { byteLength: layout.byteLength, failed: survey.failed, file };
}

/** Copies placed values from where one group would have had them to where several have. */
async function movePlaced(
  from: OpenedFile,
  to: OpenedFile,
  places: readonly { readonly values: number }[],
  layout: FileLayout,
  survey: Survey,
  { fields, memoryBytes }: AssembleOptions,
): Promise<void> {
  for (const [f, field] of fields.entries()) {
    if (survey.states[f]?.includes(PLACED) !== true) continue;
    const rowBytes = rowBytesOf(field);
    const step = Math.max(1, Math.floor(Math.min(memoryBytes, 2 ** 24) / rowBytes));
    const bytes = new Uint8Array(new ArrayBuffer(step * rowBytes));
    for (const group of layout.groups) {
      for (let row = 0; row < group.numRows; row += step) {
        const count = Math.min(step, group.numRows - row);
        const some = bytes.subarray(0, count * rowBytes);
        some.fill(0);
        await from.read(some, places[f]!.values + (group.rowStart + row) * rowBytes);
        await to.write(some, group.fields[f]!.values + row * rowBytes);
      }
    }
  }
}
