import CHeadrace
import Foundation

/// Threads that make blocking calls: they start when there is work for them, sleep while there is none, and take pieces
/// of jobs in the order in which the jobs came.
final class Lanes: Sendable {
  private let count: Int
  private let pieceBytes: Int
  private let syncKind: Int32
  private let name: String
  private let gate = Gate(State())

  private struct State {
    /// Jobs with pieces that no lane has taken.
    var jobs = Fifo<LaneJob>()
    /// Of them all.
    var piecesLeft = 0
    var threads = 0
    /// Threads that wait or have yet to begin.
    var idle = 0
    var isClosed = false
  }

  private enum Turn {
    case work(LanePiece)
    case ended(LaneJob)
    case over
  }

  init(count: Int, pieceBytes: Int, syncKind: Int32, name: String) {
    self.count = count
    self.pieceBytes = pieceBytes
    self.syncKind = syncKind
    self.name = name
  }

  /// Takes a job; `ended` comes exactly once, on a lane, or within `stop`, or within this call where there is nothing to
  /// do or no thread to be had. `keep` is what the moves' addresses and descriptors belong to.
  func start(_ moves: [Move], keep: [any AnyObject & Sendable], ended: @escaping Ended) -> any RunningWork {
    let job = LaneJob(moves: moves, pieceBytes: pieceBytes, keep: keep, ended: ended)
    let run = LaneRun(lanes: self, job: job)
    if job.piecesLeft == 0 {
      job.tell()
      return run
    }
    let (starting, waking) = gate.withLock { state in
      state.jobs.append(job)
      state.piecesLeft += job.piecesLeft
      let starting = min(max(0, state.piecesLeft - state.idle), count - state.threads)
      let waking = min(job.piecesLeft, state.idle)
      state.threads += starting
      state.idle += starting
      return (starting, waking)
    }
    for _ in 0..<waking { gate.signal() }
    for _ in 0..<starting { startThread() }
    return run
  }

  /// Lets the threads end. No job is under way, and none is started after it.
  func close() {
    gate.withLock { $0.isClosed = true }
    gate.broadcast()
  }

  /// Skips what of a job has not started.
  fileprivate func stop(_ job: LaneJob) {
    let hasEnded = gate.withLock { state in
      state.piecesLeft -= job.piecesLeft
      state.jobs.removeAll { $0 === job }
      return job.stop()
    }
    if hasEnded { job.tell() }
  }

  private func startThread() {
    let context = Unmanaged.passRetained(self)
    let result = hr_thread_start(runLane, context.toOpaque(), name)
    if result == 0 { return }
    context.release()
    // The others do the work; where there are none, nobody would.
    let failure = Failure.io("starting a thread", errno: -result)
    let stranded = gate.withLock { state in
      state.threads -= 1
      state.idle -= 1
      var stranded: [LaneJob] = []
      while state.threads == 0, let job = state.jobs.popFirst() {
        state.piecesLeft -= job.piecesLeft
        if job.fail(failure) { stranded.append(job) }
      }
      return stranded
    }
    for job in stranded { job.tell() }
  }

  fileprivate func run() {
    // Who started the thread counted it as idle.
    var isIdle = true
    var finished: LanePiece?
    while true {
      switch turn(finished, &isIdle) {
      case .work(var piece):
        piece.run(syncKind)
        finished = piece
      case .ended(let job):
        autoreleasepool { job.tell() }
        finished = nil
      case .over:
        return
      }
    }
  }

  /// Counts the last piece and takes the next one; waits for it unless a job has ended.
  private func turn(_ finished: LanePiece?, _ isIdle: inout Bool) -> Turn {
    var uncounted = finished
    var idle = isIdle
    let turn: Turn? = gate.wait { state in
      if let piece = uncounted {
        uncounted = nil
        if piece.job.count(piece) { return .ended(piece.job) }
      }
      if let piece = take(&state) {
        if idle { state.idle -= 1 }
        idle = false
        return .work(piece)
      }
      if state.isClosed {
        if idle { state.idle -= 1 }
        state.threads -= 1
        return .over
      }
      if !idle { state.idle += 1 }
      idle = true
      return nil
    }
    isIdle = idle
    return turn ?? .over
  }

  private func take(_ state: inout State) -> LanePiece? {
    while let job = state.jobs.first {
      let before = job.piecesLeft
      let piece = job.take(pieceBytes: pieceBytes, lanes: count)
      // A job that has failed has no pieces left all at once.
      state.piecesLeft -= before - job.piecesLeft
      if job.piecesLeft == 0 { _ = state.jobs.popFirst() }
      if let piece { return piece }
    }
    return nil
  }
}

private func runLane(_ context: UnsafeMutableRawPointer?) {
  guard let context else { return }
  Unmanaged<Lanes>.fromOpaque(context).takeRetainedValue().run()
}

/// A job as who started it sees it.
private final class LaneRun: RunningWork {
  private let lanes: Lanes
  private let job: LaneJob

  init(lanes: Lanes, job: LaneJob) {
    self.lanes = lanes
    self.job = job
  }

  func stop() { lanes.stop(job) }
}
