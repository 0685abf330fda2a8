import CHeadrace
import Foundation

extension Failure {
  /// The same, of one request of a submission.
  func of(request: Int?) -> Failure {
    guard let request else { return self }
    return Failure(status, "request \(request): \(message)", osErrno: osErrno)
  }
}

/// Called when the last loads are on their way, with what will be reached when they are done.
typealias OnTheirWay = @Sendable ([Milestone]) -> Void

/// One call of ``Streams/start(_:onTheirWay:ended:)``: counts its batches, keeps the first failure, tells the end once.
final class StreamRun: RunningWork, @unchecked Sendable {  // State behind a lock.
  private struct State {
    /// Batches that have not ended, of those given to a queue; one more while they are not all known.
    var left = 1
    /// Groups of batches that are given to a queue when all before them have ended. Batches keep the run, so none may
    /// stay here when it is over.
    var later: [[StreamBatch]] = []
    /// Batches that no queue has yet; 0 too where nobody is to be told of the last one.
    var uncommitted = 0
    /// Of all batches, and of the last group.
    var milestones: [Milestone] = []
    var lastMilestones: [Milestone] = []
    var onTheirWay: OnTheirWay?
    var bytesDone = 0
    var failure: Failure?
    var times = StageTimes()
    var nextKey = 0
    /// Batches on their way; nil before the commit.
    var live: [Int: CommittedLoads?] = [:]
    var ended: Ended?
  }

  /// Loads of one phase run side by side; each phase comes after the one before it.
  let phases: [[StreamLoad]]
  private let streams: Streams
  private let state: Locked<State>

  init(streams: Streams, phases: [[StreamLoad]], onTheirWay: OnTheirWay?, ended: @escaping Ended) {
    self.streams = streams
    self.phases = phases
    state = Locked(State(onTheirWay: onTheirWay, ended: ended))
  }

  /// Nobody refers to the run any more: no command buffer of it signals or waits.
  deinit { streams.milestones.giveBack(state.withLock { $0.milestones }) }

  /// Whether someone wants to know when all loads are on their way.
  var isFollowed: Bool { state.withLock { $0.onTheirWay != nil } }

  func stop() { fail(Failure(Status.cancelled, "cancelled")) }

  /// Whether it has failed or was stopped: no more batches are sent off.
  var isStopping: Bool { state.withLock { $0.failure != nil } }

  /// The first failure stays. What is on its way is asked to end, what is not is dropped.
  func fail(_ failure: Failure) {
    let asked: ([CommittedLoads], [Milestone])? = state.withLock { state in
      guard state.failure == nil, state.ended != nil else { return nil }
      state.failure = failure
      state.later = []
      return (state.live.values.compactMap { $0 }, state.milestones)
    }
    guard let (live, milestones) = asked else { return }
    for loads in live { loads.commandBuffer.tryCancel() }
    // Only now, so that what waits for them finds itself cancelled. A GPU that waits is let go at once: a load that
    // hangs on a dead volume must not hold it up.
    for milestone in milestones { milestone.reach() }
    streams.drop(self)
  }

  /// Asks each file once for its length, and checks all loads against it.
  func checkFiles() throws(Failure) {
    var lengths: [ObjectIdentifier: Int] = [:]
    for load in phases.joined() {
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

  /// The batches of `groups` will end; of these `later` are still to be given to a queue, one by one.
  func expect(_ now: [[StreamBatch]], later: [[StreamBatch]]) {
    state.withLock { state in
      let count = now.joined().count
      state.left += count
      state.later = state.failure == nil ? later : []
      state.milestones = now.joined().compactMap(\.milestone)
      state.lastMilestones = now.last?.compactMap(\.milestone) ?? []
      let isTold = state.onTheirWay != nil && later.isEmpty && !state.lastMilestones.isEmpty
      state.uncommitted = isTold ? count : 0
    }
  }

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
    let (isStopping, isLast) = state.withLock { state in
      state.times.encoded = max(state.times.encoded, encodedMs)
      state.times.committed = max(state.times.committed, clockMs())
      // It may have ended already.
      if state.live[key] != nil { state.live[key] = .some(loads) }
      let isStopping = state.failure != nil
      state.uncommitted -= 1
      return (isStopping, !isStopping && state.uncommitted == 0)
    }
    // A stop that came before could not reach it.
    if isStopping { loads.commandBuffer.tryCancel() }
    guard isLast, streams.isLight else { return }
    let (onTheirWay, milestones) = state.withLock { ($0.onTheirWay, $0.lastMilestones) }
    onTheirWay?(milestones)
  }

  func left(_ key: Int) { _ = state.withLock { $0.live.removeValue(forKey: key) } }

  func batchesEnded(_ count: Int, bytesDone: Int = 0) {
    let (isLast, next): (Bool, [StreamBatch]?) = state.withLock { state in
      state.left -= count
      state.bytesDone += bytesDone
      guard state.left == 0, count > 0 else { return (false, nil) }
      if state.later.isEmpty { return (true, nil) }
      let next = state.later.removeFirst()
      state.left = next.count
      return (false, next)
    }
    if let next { streams.send([next], of: self) }
    if isLast { streams.finish(self) { self.tell() } }
  }

  private func tell() {
    var late: Failure?
    // A load past the end of a file that shrank under it need not fail: the length tells.
    do throws(Failure) { try checkFiles() } catch { late = error }
    let (ended, end) = state.withLock { state in
      let ended = state.ended
      state.ended = nil
      state.onTheirWay = nil
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
