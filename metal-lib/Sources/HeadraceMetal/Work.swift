import CHeadrace

/// When the parts of a piece of work happened, in ms of ``clockMs()``; 0 for what did not happen.
struct StageTimes: Sendable {
  var started: Double = 0
  var encoded: Double = 0
  var committed: Double = 0
  var scheduled: Double = 0
  var kernelStart: Double = 0
  var kernelEnd: Double = 0
  var gpuStart: Double = 0
  var gpuEnd: Double = 0

  /// Of work that ran side by side or one after the other: the first of what begins, the last of what ends.
  mutating func merge(_ other: StageTimes) {
    func first(_ a: Double, _ b: Double) -> Double { a == 0 ? b : b == 0 ? a : min(a, b) }
    started = first(started, other.started)
    encoded = first(encoded, other.encoded)
    committed = first(committed, other.committed)
    scheduled = first(scheduled, other.scheduled)
    kernelStart = first(kernelStart, other.kernelStart)
    gpuStart = first(gpuStart, other.gpuStart)
    kernelEnd = max(kernelEnd, other.kernelEnd)
    gpuEnd = max(gpuEnd, other.gpuEnd)
  }
}

/// The end of a piece of work: good where `failure` is nil.
struct RunEnd: Sendable {
  /// Bytes that reads, writes and copies moved; exact on success.
  var bytesDone: Int = 0
  var failure: Failure?
  var times = StageTimes()
}

/// Work that was started. Its memory is in use until `ended` was called.
protocol RunningWork: AnyObject, Sendable {
  /// Asks for an early end; `ended` comes exactly once all the same.
  func stop()
  /// Bytes of long work that are done so far.
  var progress: Int { get }
}

extension RunningWork {
  var progress: Int { 0 }
}

/// Called exactly once, on any thread, with no lock held.
typealias Ended = @Sendable (RunEnd) -> Void

/// Begins a part of a step with what to call at its end.
typealias Part = (@escaping Ended) -> any RunningWork

/// The clock of all times: milliseconds, monotonic.
func clockMs() -> Double { hr_monotonic_ms() }

extension hr_completion {
  init(
    queue: Double, ticket: Double, status: hr_status, flags: Int, bytesDone: Int, submittedMs: Double,
    times: StageTimes, osErrno: Int32 = 0
  ) {
    self.init(
      queue: queue, ticket: ticket, status: Double(status), flags: Double(flags), bytes_done: Double(bytesDone),
      submitted_ms: submittedMs, started_ms: times.started, encoded_ms: times.encoded, committed_ms: times.committed,
      scheduled_ms: times.scheduled, kernel_start_ms: times.kernelStart, kernel_end_ms: times.kernelEnd,
      gpu_start_ms: times.gpuStart, gpu_end_ms: times.gpuEnd, ended_ms: clockMs(), os_errno: Double(osErrno))
  }
}
