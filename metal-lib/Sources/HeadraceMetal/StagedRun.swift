import CHeadrace

/// Moves between files and private memory, a bounded number of bytes at a time: lanes move them between the file and
/// staging memory, the GPU between that and the buffer.
final class StagedRun: RunningWork, @unchecked Sendable {  // What changes is in `state`.
  /// Bytes of staging memory.
  private static let stagingBytes = 16 << 20

  private let moves: [StagedMove]
  private let isRead: Bool
  private let staging: Buffer
  private let device: Device
  private let gpu: GPUQueue
  private let ended: Ended
  private let state = Locked(State())

  private struct State {
    var move = 0
    var moveDone = 0
    var current: (any RunningWork)?
    /// Counts what was started, and the end: only the latest is `current`.
    var turn = 0
    var isStopped = false
    var end = RunEnd()
  }

  /// What fits into the staging memory at once.
  private struct Batch: Sendable {
    var files: [Move] = []
    var copies: [GPUOperation] = []
    var byteLength = 0
  }

  /// HR_OUT_OF_MEMORY.
  static func makeStaging(for moves: [StagedMove], device: Device) throws(Failure) -> Buffer {
    let wanted = moves.reduce(0) { min(stagingBytes, $0 + min(stagingBytes, $1.byteLength + slack)) }
    return try Buffer.makeShared(device: device, byteLength: wanted)
  }

  /// Each piece starts in staging memory where it lies in the buffer, up to this unit: blits like that.
  private static let slack = 256

  init(moves: [StagedMove], isRead: Bool, staging: Buffer, device: Device, gpu: GPUQueue, ended: @escaping Ended) {
    self.moves = moves
    self.isRead = isRead
    self.staging = staging
    self.device = device
    self.gpu = gpu
    self.ended = ended
  }

  /// Starts it; `ended` may come within the call.
  func begin() { next(RunEnd(), countsBytes: false) }

  func stop() {
    let current = state.withLock { state in
      state.isStopped = true
      return state.current
    }
    current?.stop()
  }

  /// One half of a batch is over: runs the next batch, or ends.
  private func next(_ end: RunEnd, countsBytes: Bool) {
    guard let batch = takeBatch(end, countsBytes: countsBytes) else {
      let last = state.withLock { state in
        state.current = nil
        state.turn += 1
        return state.end
      }
      ended(last)
      return
    }
    let second: Ended = { [self] end in next(end, countsBytes: true) }
    let lanes = isRead ? device.lanes : device.writeLanes
    let onLanes: @Sendable (@escaping Ended) -> any RunningWork = { [staging] in
      lanes.start(batch.files, keep: [staging], ended: $0)
    }
    let onGPU: @Sendable (@escaping Ended) -> any RunningWork = { [gpu] in gpu.start(batch.copies, ended: $0) }
    if isRead {
      run(onLanes, then: onGPU, ended: second)
    } else {
      run(onGPU, then: onLanes, ended: second)
    }
  }

  private func run(
    _ first: Part, then: @escaping @Sendable (@escaping Ended) -> any RunningWork, ended: @escaping Ended
  ) {
    start(first) { [self] end in
      let isStopped = state.withLock { state in
        state.end.times = state.end.times.started == 0 ? end.times : state.end.times
        return state.isStopped
      }
      if end.failure != nil || isStopped {
        ended(RunEnd(failure: end.failure))
      } else {
        start(then, ended)
      }
    }
  }

  /// Starts a half of a batch, and remembers it so that it can be stopped. It may be over before `begin` returns, and
  /// then must not be remembered: it keeps this run.
  private func start(_ begin: Part, _ ended: @escaping Ended) {
    let turn = state.withLock { state in
      state.turn += 1
      return state.turn
    }
    let work = begin(ended)
    let isStopped = state.withLock { state in
      if state.turn == turn { state.current = work }
      return state.isStopped
    }
    if isStopped { work.stop() }
  }

  private func takeBatch(_ end: RunEnd, countsBytes: Bool) -> Batch? {
    state.withLock { state in
      if state.end.failure == nil { state.end.failure = end.failure }
      if countsBytes, end.failure == nil { state.end.bytesDone += end.bytesDone }
      guard state.end.failure == nil, !state.isStopped else { return nil }
      var batch = Batch()
      while state.move < moves.count {
        let move = moves[state.move]
        let lead = (move.bufferOffset + state.moveDone) % Self.slack
        let room = staging.byteLength - batch.byteLength - lead
        if room <= 0 { break }
        let count = min(room, move.byteLength - state.moveDone)
        add(move, from: state.moveDone, count: count, at: batch.byteLength + lead, to: &batch)
        batch.byteLength = roundUp(batch.byteLength + lead + count, to: Self.slack) ?? .max
        state.moveDone += count
        if state.moveDone < move.byteLength { break }
        state.move += 1
        state.moveDone = 0
      }
      return batch.files.isEmpty ? nil : batch
    }
  }

  private func add(_ move: StagedMove, from: Int, count: Int, at: Int, to batch: inout Batch) {
    guard let bytes = staging.bytes else { return }
    batch.files.append(
      Move(
        operation: isRead ? .read : .write, request: move.request, descriptor: move.descriptor.number,
        fileOffset: move.fileOffset + from, target: isRead ? bytes + at : nil,
        source: isRead ? nil : UnsafeRawPointer(bytes + at), byteLength: count,
        whole: move.fileOffset..<move.fileOffset + move.byteLength))
    let inBuffer = move.bufferOffset + from
    batch.copies.append(
      .copy(
        source: isRead ? staging : move.buffer, sourceOffset: isRead ? at : inBuffer,
        target: isRead ? move.buffer : staging, targetOffset: isRead ? inBuffer : at, byteLength: count))
  }
}
