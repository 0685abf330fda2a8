import CHeadrace
import Foundation
import Metal

/// Operations on their way through the GPU: encoded on the queue's worker, a bounded number in each command buffer, and
/// ended when the last command buffer has completed.
final class GPURun: RunningWork, @unchecked Sendable {  // What changes is in `state`.
  private let operations: [GPUOperation]
  /// Reached when what they read is there; each command buffer waits for them on the GPU.
  private let milestones: [Milestone]
  private let queue: GPUQueue
  private let ended: Ended
  private let state = Locked(State())

  private struct State: Sendable {
    var isStopped = false
    /// The first operation that is not committed.
    var next = 0
    /// Command buffers that have not completed.
    var inFlight = 0
    var hasRetried = false
    var isEncoding = true
    var failure: Failure?
    var bytesDone = 0
    var times = StageTimes()
  }

  /// A part of the operations in one command buffer.
  private struct Part: Sendable {
    let range: Range<Int>
    let lane: GPUQueue.Lane
  }

  init(_ operations: [GPUOperation], after milestones: [Milestone], queue: GPUQueue, ended: @escaping Ended) {
    self.operations = operations
    self.milestones = milestones
    self.queue = queue
    self.ended = ended
  }

  /// What is committed runs to its end.
  func stop() { state.withLock { $0.isStopped = true } }

  /// On the queue's worker: commits as much as there is, or one part where a failed one is to be run again.
  func encode() {
    state.withLock { state in
      state.isEncoding = true
      if state.times.started == 0 { state.times.started = clockMs() }
    }
    while let range = takePart() {
      do throws(Failure) {
        try commit(range)
      } catch {
        state.withLock { $0.failure = $0.failure ?? error }
        break
      }
      if queue.device.options.retriesOnce { break }
    }
    endIfDone { $0.isEncoding = false }
  }

  private func takePart() -> Range<Int>? {
    state.withLock { state in
      if state.isStopped || state.failure != nil || state.next == operations.count { return nil }
      let end = min(operations.count, state.next + GPUQueue.operationsPerBuffer)
      return state.next..<end
    }
  }

  private func commit(_ range: Range<Int>) throws(Failure) {
    try queue.device.checkAlive()
    try prepare(range)
    let part = Part(range: range, lane: queue.lane)
    let retains = operations[range].contains(where: \.hasProducts)
    let made = retains ? part.lane.queue.makeCommandBuffer() : part.lane.queue.makeCommandBufferWithUnretainedReferences()
    guard let commands = made else {
      throw Failure(Status.deviceFailed, "\(queue.device.metal.name) made no command buffer")
    }
    commands.label = "headrace"
    // All of them, not the first alone: one that is run again goes to another queue.
    for milestone in milestones { commands.encodeWaitForEvent(milestone.event, value: milestone.value) }
    var encoder = GPUEncoder(commands: commands, fence: part.lane.fence, queue: queue)
    defer { encoder.end() }
    for operation in operations[range] { try encoder.encode(operation) }
    encoder.end()
    commands.addScheduledHandler { [self] _ in state.withLock { $0.times.scheduled = clockMs() } }
    commands.addCompletedHandler { [self] done in completed(done, part) }
    let encoded = clockMs()
    state.withLock { state in
      state.next = range.upperBound
      state.inFlight += 1
      state.times.encoded = encoded
      state.times.committed = encoded
    }
    commands.commit()
    queue.device.residency.used()
    state.withLock { state in state.times.committed = max(encoded, clockMs()) }
  }

  /// Brings pages of mappings in by the CPU: a GPU that waits for a disk is stopped by the system.
  private func prepare(_ range: Range<Int>) throws(Failure) {
    for operation in operations[range] {
      switch operation {
      case .copy(let source, _, let target, _, _):
        try prepare([source, target].filter { $0.mapping != nil })
      case .dispatch(let dispatch): try prepare(dispatch.special)
      case .replay(let sequence, _): try prepare(sequence.special)
      }
    }
  }

  private func prepare(_ buffers: [Buffer]) throws(Failure) {
    for buffer in buffers {
      try buffer.checkFile()
      buffer.prepareForGPU()
    }
  }

  /// On a thread of Metal's.
  private func completed(_ commands: any MTLCommandBuffer, _ part: Part) {
    let failure = commands.error.map { GPUFailure($0, device: queue.device.metal.name) }
    if failure?.isFinal == true { queue.device.markLost() }
    let times = (commands.kernelStartTime, commands.kernelEndTime, commands.gpuStartTime, commands.gpuEndTime)
    let bytes = failure == nil ? copiedBytes(part.range) : 0
    let again: Bool = state.withLock { state in
      state.inFlight -= 1
      state.bytesDone += bytes
      state.times.add(kernelStart: times.0, kernelEnd: times.1, gpuStart: times.2, gpuEnd: times.3)
      guard let failure else { return queue.device.options.retriesOnce && state.next < operations.count }
      if failure.mayRetry, queue.device.options.retriesOnce, !state.hasRetried, !state.isStopped {
        state.hasRetried = true
        state.next = part.range.lowerBound
        return true
      }
      state.failure = state.failure ?? failure.failure
      return false
    }
    if failure == nil && !again { return endIfDone { _ in } }
    // Not on Metal's thread: a new queue and new command buffers may have to be waited for.
    queue.worker.async { [self] in
      autoreleasepool { resume(after: failure, part, again: again) }
    }
  }

  private func resume(after failure: GPUFailure?, _ part: Part, again: Bool) {
    do throws(Failure) {
      if failure != nil, failure?.isFinal == false { try queue.replace(part.lane) }
      if again { return encode() }
    } catch {
      state.withLock { $0.failure = $0.failure ?? failure?.failure ?? error }
    }
    endIfDone { _ in }
  }

  private func copiedBytes(_ range: Range<Int>) -> Int {
    operations[range].reduce(0) { sum, operation in
      if case .copy(_, _, _, _, let byteLength) = operation { return sum + byteLength }
      return sum
    }
  }

  /// Calls `ended` once nothing of the run is in flight or to come.
  private func endIfDone(_ change: (inout State) -> Void) {
    let end: RunEnd? = state.withLock { state in
      change(&state)
      let isOver = state.isStopped || state.failure != nil || state.next == operations.count
      guard isOver, state.inFlight == 0, !state.isEncoding else { return nil }
      // Nobody ends it again.
      state.isEncoding = true
      if state.failure == nil, state.next < operations.count {
        state.failure = Failure(Status.cancelled, "GPU work was stopped after \(state.next) of \(operations.count) operations")
      }
      return RunEnd(bytesDone: state.bytesDone, failure: state.failure, times: state.times)
    }
    if let end { ended(end) }
  }
}

extension StageTimes {
  /// Adds what a command buffer says, in host seconds: of several the first start and the last end count.
  fileprivate mutating func add(kernelStart: Double, kernelEnd: Double, gpuStart: Double, gpuEnd: Double) {
    self.kernelStart = Self.earlier(self.kernelStart, kernelStart)
    self.kernelEnd = max(self.kernelEnd, kernelEnd * 1000)
    self.gpuStart = Self.earlier(self.gpuStart, gpuStart)
    self.gpuEnd = max(self.gpuEnd, gpuEnd * 1000)
  }

  private static func earlier(_ ms: Double, _ seconds: Double) -> Double {
    if seconds == 0 { return ms }
    return ms == 0 ? seconds * 1000 : min(ms, seconds * 1000)
  }
}
