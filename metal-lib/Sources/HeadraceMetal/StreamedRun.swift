import CHeadrace

/// Streamed reads, and the GPU work that follows them.
///
/// Where few bytes are to come, the GPU's commands are committed while the loads are still on their way, and wait for
/// MTLIO's own signals: no thread of this process has to wake up between the two. That is done only once all the
/// loads are committed, so that the wait ends whatever becomes of them. Where they fail or are stopped after that, the
/// GPU runs over what is there; the failure is told all the same, and only after the GPU has come to its end.
final class StreamedRun: RunningWork, @unchecked Sendable {  // What changes is in `state`.
  private let step: LoadStep
  private let streams: Streams
  private let gpu: GPUQueue
  private let ended: Ended
  private let state = Locked(State())

  private struct State {
    /// Kept to the end: it takes the events back that the GPU waits for.
    var loads: (any RunningWork)?
    var gpuRun: (any RunningWork)?
    var hasGPU = false
    var isStopped = false
    var loadEnd: RunEnd?
    var gpuEnd: RunEnd?
    var hasEnded = false
  }

  init(_ step: LoadStep, streams: Streams, gpu: GPUQueue, ended: @escaping Ended) {
    self.step = step
    self.streams = streams
    self.gpu = gpu
    self.ended = ended
  }

  /// Starts it; `ended` never comes within the call.
  func begin() {
    let loads = streams.start(
      step.phases, onTheirWay: { [self] milestones in startGPU(after: milestones, isAhead: true) },
      ended: { [self] end in loadsEnded(end) })
    let isStopped = state.withLock { state in
      if !state.hasEnded { state.loads = loads }
      return state.isStopped
    }
    if isStopped { loads.stop() }
  }

  func stop() {
    let (loads, gpuRun) = state.withLock { state in
      state.isStopped = true
      return (state.loads, state.gpuRun)
    }
    // The GPU first: what it was not given yet it is not to get.
    gpuRun?.stop()
    loads?.stop()
  }

  private func loadsEnded(_ end: RunEnd) {
    state.withLock { $0.loadEnd = end }
    startGPU(after: [], isAhead: false)
    endIfDone()
  }

  /// Unless it was started, or is not to be any more.
  private func startGPU(after milestones: [Milestone], isAhead: Bool) {
    let starts = state.withLock { state in
      let isTime = isAhead ? state.loadEnd == nil : state.loadEnd?.failure == nil
      guard isTime, !state.hasGPU, !state.isStopped else { return false }
      state.hasGPU = true
      return true
    }
    guard starts else { return }
    let run = gpu.start(step.operations, after: milestones) { [self] end in
      state.withLock { $0.gpuEnd = end }
      endIfDone()
    }
    let isStopped = state.withLock { state in
      if !state.hasEnded { state.gpuRun = run }
      return state.isStopped
    }
    if isStopped { run.stop() }
  }

  /// Tells the end once neither is under way. Bytes that were not there explain what the GPU failed with.
  private func endIfDone() {
    let end: RunEnd? = state.withLock { state in
      guard !state.hasEnded, var end = state.loadEnd, !state.hasGPU || state.gpuEnd != nil else { return nil }
      state.hasEnded = true
      state.loads = nil
      state.gpuRun = nil
      if let gpuEnd = state.gpuEnd {
        end.bytesDone += gpuEnd.bytesDone
        end.failure = end.failure ?? gpuEnd.failure
        end.times.merge(gpuEnd.times)
      } else if end.failure == nil {
        end.failure = Failure(Status.cancelled, "GPU work was stopped before it had begun")
      }
      return end
    }
    if let end { ended(end) }
  }
}
