import CHeadrace

/// `hr_device_options`, checked and without zeros that mean a default.
struct Options: Sendable {
  let retriesOnce: Bool
  let usesResidency: Bool
  /// GPU work gets to the GPU only after streamed reads before it have ended.
  let keepsGPUBehind: Bool
  /// How `sync` requests go: HR_SYNC_PLAIN, HR_SYNC_BARRIER or HR_SYNC_FULL.
  let syncKind: Int32
  /// Threads that read and copy, 1 to 64; that write, 1 to 16.
  let lanes: Int
  let writeLanes: Int
  /// MTLIO queues for compressed files, 1 to 16.
  let ioQueues: Int
  /// 0 lets the system choose.
  let ioMaxCommands: Int
  let ioMaxCommandBuffers: Int
  /// 0 high, 1 normal, 2 low: raw values of MTLIOPriority.
  let ioPriority: Int
  let ioSerial: Bool
  /// Bytes, 4 KiB to 1 GiB.
  let pieceBytes: Int
  let inlineCopyBytes: Int
  /// Bytes of windows that may be mapped at the same time.
  let mapBudget: Int
  /// Bound of MTLIO scratch memory, in bytes.
  let ioScratchBytes: Int
  let keepAliveMs: Int

  /// `workingSet` is the device's, in bytes. HR_INVALID for a value outside its bounds.
  init(_ raw: hr_device_options, workingSet: UInt64, cores: Int) throws(Failure) {
    let known = UInt32(
      HR_OPTION_RETRY_ONCE | HR_OPTION_NO_RESIDENCY | HR_OPTION_BARRIER_FSYNC | HR_OPTION_FULL_FSYNC
        | HR_OPTION_GPU_BEHIND)
    guard raw.flags & ~known == 0 else {
      throw Failure(Status.invalid, "option flags \(raw.flags) have bits outside \(known)")
    }
    retriesOnce = raw.flags & UInt32(HR_OPTION_RETRY_ONCE) != 0
    usesResidency = raw.flags & UInt32(HR_OPTION_NO_RESIDENCY) == 0
    keepsGPUBehind = raw.flags & UInt32(HR_OPTION_GPU_BEHIND) != 0
    let full = raw.flags & UInt32(HR_OPTION_FULL_FSYNC) != 0
    let barrier = raw.flags & UInt32(HR_OPTION_BARRIER_FSYNC) != 0
    syncKind = Int32(full ? HR_SYNC_FULL : barrier ? HR_SYNC_BARRIER : HR_SYNC_PLAIN)
    lanes = try Self.value("lanes", UInt64(raw.lanes), 1, 64, min(12, max(8, cores)))
    writeLanes = try Self.value("write_lanes", UInt64(raw.write_lanes), 1, 16, 3)
    ioQueues = try Self.value("io_queues", UInt64(raw.io_queues), 1, 16, min(8, max(2, cores)))
    ioMaxCommands = try Self.value("io_max_commands", UInt64(raw.io_max_commands), 0, 8192, 0)
    ioMaxCommandBuffers = try Self.value("io_max_command_buffers", UInt64(raw.io_max_command_buffers), 1, 4096, 64)
    ioPriority = try Self.value("io_priority", UInt64(raw.io_priority), 0, 2, 0)
    ioSerial = try Self.value("io_serial", UInt64(raw.io_serial), 0, 1, 0) == 1
    pieceBytes = try Self.value("piece_bytes", raw.piece_bytes, 4096, 1 << 30, 8 << 20)
    inlineCopyBytes = try Self.value("inline_copy_bytes", raw.inline_copy_bytes, 1, 1 << 40, 1 << 20)
    let budget = Int(clamping: workingSet / 4 * 3)
    mapBudget = try Self.value("map_budget", raw.map_budget, 1, 1 << 53, budget)
    ioScratchBytes = try Self.value("io_scratch_bytes", raw.io_scratch_bytes, 1 << 16, 1 << 40, 256 << 20)
    keepAliveMs = try Self.value("keep_alive_ms", raw.keep_alive_ms, 1, 1 << 40, 180_000)
  }

  private static func value(
    _ name: String, _ given: UInt64, _ least: UInt64, _ most: UInt64, _ byDefault: Int
  ) throws(Failure) -> Int {
    if given == 0 { return byDefault }
    guard given >= least, given <= most else {
      throw Failure(Status.invalid, "option \(name) is \(given), and must be in \(least) to \(most)")
    }
    return Int(given)
  }
}
