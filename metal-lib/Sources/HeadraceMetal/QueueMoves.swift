import CHeadrace

extension Queue {
  /// Starts the parts of a step by `start`: each on what is made for it.
  func start(_ step: MoveStep, _ start: (Part) -> Void) throws(Failure) {
    let device = self.device
    if !step.reads.isEmpty { start { device.lanes.start(step.reads, keep: [], ended: $0) } }
    if !step.writes.isEmpty { start { device.writeLanes.start(step.writes, keep: [], ended: $0) } }
    if !step.loads.isEmpty { start { device.streams.start([step.loads], ended: $0) } }
    if step.copies.isEmpty && step.stagedReads.isEmpty && step.stagedWrites.isEmpty { return }
    let gpu = try gpu()
    if !step.copies.isEmpty { start { gpu.start(step.copies, ended: $0) } }
    for (moves, isRead) in [(step.stagedReads, true), (step.stagedWrites, false)] where !moves.isEmpty {
      let staging = try StagedRun.makeStaging(for: moves, device: device)
      start { ended in
        let run = StagedRun(moves: moves, isRead: isRead, staging: staging, device: device, gpu: gpu, ended: ended)
        run.begin()
        return run
      }
    }
  }

  /// Starts streamed reads, and the GPU work that follows them.
  func start(_ step: LoadStep, _ start: (Part) -> Void) throws(Failure) {
    let streams = device.streams
    if step.operations.isEmpty { return start { streams.start(step.phases, ended: $0) } }
    let gpu = try gpu()
    start { ended in
      let run = StreamedRun(step, streams: streams, gpu: gpu, ended: ended)
      run.begin()
      return run
    }
  }
}
