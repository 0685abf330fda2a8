import CHeadrace
import Foundation

extension Failure {
  /// The same, of one request of a submission.
  func of(request: Int?) -> Failure {
    guard let request else { return self }
    return Failure(status, "request \(request): \(message)", osErrno: osErrno)
  }
}

/// One call of ``Streams/start(_:ended:)``: counts its batches, keeps the first failure, tells the end once.
final class StreamRun: RunningWork, @unchecked Sendable {  // State behind a lock.
  private struct State {
    /// Batches that have not ended; one more while they are not all known.
    var left = 1
    var bytesDone = 0
    var failure: Failure?
    var times = StageTimes()
    var nextKey = 0
    /// Batches on their way; nil before the commit.
    var live: [Int: CommittedLoads?] = [:]
    var ended: Ended?
  }

  let loads: [StreamLoad]
  private let streams: Streams
  private let state: Locked<State>

  init(streams: Streams, loads: [StreamLoad], ended: @escaping Ended) {
    self.streams = streams
    self.loads = loads
    state = Locked(State(ended: ended))
  }

  func stop() { fail(Failure(Status.cancelled, "cancelled")) }

  /// Whether it has failed or was stopped: no more batches are sent off.
  var isStopping: Bool { state.withLock { $0.failure != nil } }

  /// The first failure stays. What is on its way is asked to end, what is not is dropped.
  func fail(_ failure: Failure) {
    let live: [CommittedLoads]? = state.withLock { state in
      guard state.failure == nil, state.ended != nil else { return nil }
      state.failure = failure
      return state.live.values.compactMap { $0 }
    }
    guard let live else { return }
    for loads in live { loads.commandBuffer.tryCancel() }
    streams.drop(self)
  }

  /// Asks each file once for its length, and checks all loads against it.
  func checkFiles() throws(Failure) {
    var lengths: [ObjectIdentifier: Int] = [:]
    for load in loads {
      let file = ObjectIdentifier(load.file)
      let stored: Int
      if let known = lengths[file] { stored = known } else { stored = try load.file.storedLengthNow() }
      lengths[file] = stored
      do throws(Failure) {
        try load.file.check(offset: load.fileOffset, byteLength: load.byteLength, stored: stored)
        try checkTarget(load)
      } catch {
        throw error.of(request: load.request)
      }
    }
  }

  private func checkTarget(_ load: StreamLoad) throws(Failure) {
    let room = load.target.byteLength
    guard load.targetOffset >= 0, load.targetOffset <= room, load.byteLength <= room - load.targetOffset else {
      let range = "[\(load.targetOffset), \(load.targetOffset) + \(load.byteLength))"
      throw Failure(Status.outOfRange, "bytes \(range) do not lie in the buffer's \(room) bytes")
    }
  }

  /// So many batches will end.
  func expect(_ count: Int) { state.withLock { $0.left += count } }

  // MARK: What a lane says of a batch

  /// A batch is about to be encoded; nil where it should not be any more.
  func took() -> Int? {
    state.withLock { state in
      guard state.failure == nil else { return nil }
      if state.times.started == 0 { state.times.started = clockMs() }
      state.nextKey += 1
      state.live[state.nextKey] = .some(nil)
      return state.nextKey
    }
  }

  func committed(_ key: Int, _ loads: CommittedLoads, encodedMs: Double) {
    let isStopping = state.withLock { state in
      state.times.encoded = max(state.times.encoded, encodedMs)
      state.times.committed = max(state.times.committed, clockMs())
      // It may have ended already.
      if state.live[key] != nil { state.live[key] = .some(loads) }
      return state.failure != nil
    }
    // A stop that came before could not reach it.
    if isStopping { loads.commandBuffer.tryCancel() }
  }

  func left(_ key: Int) { _ = state.withLock { $0.live.removeValue(forKey: key) } }

  func batchesEnded(_ count: Int, bytesDone: Int = 0) {
    let isLast = state.withLock { state in
      state.left -= count
      state.bytesDone += bytesDone
      return state.left == 0 && count > 0
    }
    if isLast { streams.finish(self) { self.tell() } }
  }

  private func tell() {
    var late: Failure?
    // A load past the end of a file that shrank under it need not fail: the length tells.
    do throws(Failure) { try checkFiles() } catch { late = error }
    let (ended, end) = state.withLock { state in
      let ended = state.ended
      state.ended = nil
      let failure = Self.first(state.failure, late)
      return (ended, RunEnd(bytesDone: state.bytesDone, failure: failure, times: state.times))
    }
    ended?(end)
  }

  /// That a file shrank explains what MTLIO failed with; a stop comes before both.
  private static func first(_ failure: Failure?, _ late: Failure?) -> Failure? {
    guard let failure, let late else { return failure ?? late }
    return [Status.io, Status.corrupt].contains(failure.status) ? late : failure
  }
}
