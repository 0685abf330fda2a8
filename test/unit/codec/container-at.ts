/** Containers as files, written as packing writes them. */
import { type ContainerOptions, type ContainerWriter, openContainer } from "../../../src/codec/container.ts";
import { DISK } from "../../../src/loader/writeback/files.ts";
import { PlainSink, type SinkEnd } from "../../../src/pack/files.ts";

export function containerAt(path: string, options: ContainerOptions): Promise<ContainerWriter<SinkEnd>> {
  return openContainer(() => PlainSink.open(path, DISK), options);
}
