/** The public API. */
export type {
  Capabilities,
  Completion,
  Declined,
  Device,
  DeviceBuffer,
  DeviceEvent,
  DeviceFile,
  DeviceHeap,
  DeviceQueue,
  FileMode,
  FunctionConstant,
  KernelSource,
  MatmulOptions,
  Pipeline,
  PreparedStream,
  PrepareStreamOptions,
  Sequence,
  Stages,
} from "./device/device.ts";
export {
  type CudaFindings,
  DEVICE_NAMES,
  lookAtCuda,
  type OpenDeviceOptions,
  openDevice,
} from "./device/open.ts";
export {
  type BufferBinding,
  type DispatchCall,
  RequestList,
  type SlotOffset,
} from "./device/requests.ts";
export { ERROR_CODES, type ErrorCode, HeadraceError } from "./errors.ts";
export { codecNames } from "./format/chunks.ts";
export { encodeManifest, type Manifest, type ManifestShard, parseManifest } from "./format/manifest.ts";
export { EmbedEngine, type EmbedOptions, openEmbedder } from "./infer/embed.ts";
export type {
  DeviceVector,
  Engine,
  EngineCapacity,
  InferRequest,
  PrefillChunk,
  SamplingOptions,
  SlotResult,
} from "./infer/engine.ts";
export { type GenerateOptions, type Generation, generate } from "./infer/generate.ts";
export { HttpEngine, openHttpEngine } from "./infer/http/engine.ts";
export type { HttpEngineOptions, HttpMode } from "./infer/http/options.ts";
export { infer } from "./infer/job.ts";
export { type LlamaConfig, parseLlamaConfig } from "./infer/llama/config.ts";
export { LlamaEngine, type LlamaModel, openLlama } from "./infer/llama/engine.ts";
export type { LlamaOptions } from "./infer/llama/options.ts";
export type { Latency, MetricsSnapshot } from "./infer/metrics.ts";
export type { InferOptions, OwnEngine } from "./infer/options.ts";
export type { Finish, InferOutput } from "./infer/output.ts";
export { Quantiles } from "./infer/quantiles.ts";
export type { InferProgress, InferReport } from "./infer/report.ts";
export {
  needsSeen,
  resolveSampling,
  type SampledRow,
  type SampleParamsView,
  type Sampling,
  sampleParamsView,
  writeSampleParams,
} from "./infer/sampling.ts";
export { Scheduler } from "./infer/scheduler.ts";
export type { SchedulerCounts, SchedulerOptions } from "./infer/scheduling.ts";
export type { SlotMemory, StepOutcome, StepPlan } from "./infer/step.ts";
export type { Decode } from "./infer/stops.ts";
export { openTokenizer, type Tokenizer } from "./infer/tokenizer.ts";
export type { AdmissionOrder } from "./infer/waiting.ts";
export {
  addChecksum,
  CHECKSUM_BLOCK,
  CHECKSUM_BYTES,
  type ChecksumOptions,
  checksumCall,
  checksumKernel,
  checksumOf,
  finishChecksum,
} from "./kernels/checksum.ts";
export type { Place } from "./kernels/constants.ts";
export {
  type Conversion,
  type ConvertOptions,
  convertCall,
  convertKernel,
} from "./kernels/convert.ts";
export type { ConvertSource, ConvertTarget } from "./kernels/elements.ts";
export { type GatherOptions, gatherCall, gatherKernel } from "./kernels/gather.ts";
export {
  type PadAndMaskOptions,
  type PadElementBytes,
  padAndMaskCall,
  padAndMaskKernel,
} from "./kernels/pad.ts";
export {
  SAMPLE_PARAMS_BYTES,
  type SampleOptions,
  sampleCall,
  sampleKernel,
} from "./kernels/sample.ts";
export { type MarkSeenOptions, markSeenCall, markSeenKernel, seenWords } from "./kernels/seen.ts";
export type { StepRows } from "./kernels/step.ts";
export { Batch, Column, type ColumnParts, Part } from "./loader/batch.ts";
export { Dataset, type DatasetOptions, type DatasetShard } from "./loader/dataset.ts";
export type { DatasetDictionary } from "./loader/dictionary.ts";
export { Loader, type LoaderStats } from "./loader/loader.ts";
export { type ManifestOptions, makeManifest } from "./loader/manifest.ts";
export { type OpenOptions, openDataset, openLoader } from "./loader/open.ts";
export type { LoaderOptions } from "./loader/options.ts";
export type { ShardPath } from "./loader/path.ts";
export { HostReader, type HostReaderOptions } from "./loader/reader.ts";
export {
  type MeasuredChoice,
  type MeasuredMachine,
  parseRecommended,
  RECOMMENDED_VERSION,
  type Recommended,
} from "./loader/recommended.ts";
export { type SaveOptions, saveSafetensors, saveText, type TensorData } from "./loader/save.ts";
export { columnText } from "./loader/schema.ts";
export type { LoaderState } from "./loader/state.ts";
export { DEVICE_TRACKS, INFER_TRACKS, TRACKS, TraceRecorder, type Tracer } from "./loader/trace.ts";
export { type PreparedSource, type PrepareOptions, prepareSource } from "./loader/whole.ts";
export type { OutputColumn } from "./loader/writeback/columns.ts";
export type { JobIdentity, Json } from "./loader/writeback/job.ts";
export { openWriter } from "./loader/writeback/open.ts";
export type { WriterOptions } from "./loader/writeback/options.ts";
export type { InputShard } from "./loader/writeback/output.ts";
export type { DeviceValues } from "./loader/writeback/placing.ts";
export { type OutputRow, Writer, type WriterSummary } from "./loader/writeback/writer.ts";
export {
  PACK_CODECS,
  type PackCodec,
  type PackedShard,
  type PackFormat,
  type PackOptions,
  type PackProgress,
  type PackReport,
} from "./pack/options.ts";
export { pack } from "./pack/pack.ts";
export {
  type Check,
  type Problem,
  type VerifiedShard,
  type VerifyOptions,
  type VerifyReport,
  verify,
} from "./pack/verify.ts";
export type { SampleRange } from "./plan/select.ts";
export type * from "./types.ts";
