import CHeadrace
import Foundation
import Metal

/// Bytes [fileOffset, fileOffset + byteLength) of a file's content into a buffer, shared or private.
struct StreamLoad: Sendable {
  let file: StreamFile
  let fileOffset: Int
  let target: Buffer
  let targetOffset: Int
  let byteLength: Int
  /// Of its submission, for texts of failures; nil where there is none.
  var request: Int? = nil
}

/// MTLIO of one device: a queue for raw files, several for compressed ones, since each decompresses serially.
///
/// Loads are cut into batches, each small enough to be one command buffer. As many command buffers are in flight at a
/// time as the queues take without blocking, and as the bound of scratch memory allows. Each is made only when it can
/// be committed at once, and is committed whatever happens, since one that is not would hold its queue's slot for ever.
final class Streams: @unchecked Sendable {  // State behind a lock.
  /// The most command buffers that are ordered by events. With more, the loads take so long that the way by the CPU
  /// does not count.
  static let maxLinked = 16
  /// See ``isLight``: some ten ms of a solid-state disk.
  static let lightBytes = 32 << 20

  private struct State {
    var waiting: [Fifo<StreamBatch>] = [Fifo(), Fifo()]
    /// Command buffers in flight, by lane.
    var inFlight: [Int]
    var scratchBytes = 0
    var bytesInFlight = 0
    var runs: [ObjectIdentifier: StreamRun] = [:]
    var isClosed = false
  }

  let scratch: ScratchAllocator
  let milestones: Milestones
  private let metal: any MTLDevice
  private let options: Options
  /// The first is for raw files.
  private let lanes: [StreamLane]
  private let state: Locked<State>
  /// Cuts runs up, and tells their ends: never on the thread of a caller.
  private let control = DispatchQueue(label: "headrace.streams", qos: .userInitiated)

  /// Makes no MTLIO queue before there is something to load.
  init(device metal: any MTLDevice, options: Options) {
    self.metal = metal
    self.options = options
    let scratch = ScratchAllocator(metal: metal, bound: options.ioScratchBytes)
    self.scratch = scratch
    milestones = Milestones(metal: metal)
    lanes = (0...options.ioQueues).map { StreamLane(number: $0, metal: metal, options: options, scratch: scratch) }
    state = Locked(State(inFlight: [Int](repeating: 0, count: options.ioQueues + 1)))
  }

  /// See ``StreamFile/init(metal:path:codec:byteLength:)``.
  func open(path: String, codec: UInt32, byteLength: Int) throws(Failure) -> StreamFile {
    try StreamFile(metal: metal, path: path, codec: codec, byteLength: byteLength)
  }

  /// Starts loads: those of a phase run side by side in any order, and each phase after the one before it.
  /// `onTheirWay` comes at most once, where the GPU may be made to wait for the loads, and not before a command buffer
  /// that it would wait for is committed.
  ///
  /// HR_SHORT_READ, HR_FILE_CHANGED, HR_OUT_OF_RANGE where a file does not have the bytes, now or at the end; HR_IO,
  /// HR_CORRUPT (of a compressed file) where MTLIO fails; HR_OUT_OF_MEMORY without scratch memory; HR_CANCELLED after a
  /// stop, HR_CLOSED after ``close()``.
  func start(
    _ phases: [[StreamLoad]], onTheirWay: OnTheirWay? = nil, ended: @escaping Ended
  ) -> any RunningWork {
    let run = StreamRun(
      streams: self, phases: phases, onTheirWay: options.keepsGPUBehind ? nil : onTheirWay, ended: ended)
    control.async { self.begin(run) }
    return run
  }

  /// Stops all runs and takes no more. Their ends still come.
  func close() {
    let runs = state.withLock { state in
      state.isClosed = true
      return Array(state.runs.values)
    }
    for run in runs { run.fail(Failure.closed("the device")) }
  }

  private func begin(_ run: StreamRun) {
    let isClosed = state.withLock { state in
      if !state.isClosed { state.runs[ObjectIdentifier(run)] = run }
      return state.isClosed
    }
    if isClosed { run.fail(Failure.closed("the device")) }
    do throws(Failure) {
      try run.checkFiles()
      var groups = StreamCutter(run: run, pieceBytes: options.pieceBytes).groups(of: run.phases)
      let isLinked = link(&groups, isFollowed: run.isFollowed)
      let now = isLinked ? groups : Array(groups.prefix(1))
      run.expect(now, later: Array(groups.dropFirst(now.count)))
      send(now, of: run)
    } catch {
      run.fail(error)
    }
    run.batchesEnded(1)
  }

  /// Takes back what is not on its way.
  func drop(_ run: StreamRun) {
    let count = state.withLock { state in
      let before = state.waiting[0].count + state.waiting[1].count
      for index in state.waiting.indices { state.waiting[index].removeAll { $0.run === run } }
      return before - state.waiting[0].count - state.waiting[1].count
    }
    run.batchesEnded(count)
  }

  func finish(_ run: StreamRun, _ tell: @escaping @Sendable () -> Void) {
    _ = state.withLock { $0.runs.removeValue(forKey: ObjectIdentifier(run)) }
    control.async(execute: tell)
  }

  // MARK: Batches

  /// Gives batches that follow one another to the queues, in that order.
  func send(_ groups: [[StreamBatch]], of run: StreamRun) {
    state.withLock { state in
      for batch in groups.joined() { state.waiting[batch.isCompressed ? 1 : 0].append(batch) }
    }
    // A run that was stopped before now takes its batches back itself, or never gives them.
    if run.isStopping { drop(run) }
    pump()
  }

  /// Whether so little is on its way that a GPU may wait for it: other work behind that wait waits too, and a wait that
  /// takes seconds may be ended by the system.
  var isLight: Bool { state.withLock { $0.bytesInFlight <= Self.lightBytes } }

  /// Has groups follow one another by events, and the last one tell of its end by events where that `isFollowed`. False
  /// where each group is to be sent when the one before has ended.
  private func link(_ groups: inout [[StreamBatch]], isFollowed: Bool) -> Bool {
    let signalling = groups.dropLast(isFollowed ? 0 : 1).joined().count
    if signalling == 0 { return true }
    guard groups.joined().count <= Self.maxLinked,
      // Batches of one kind are sent in order, so that none takes the place of one that it waits for.
      Set(groups.joined().map(\.isCompressed)).count == 1, var unused = milestones.take(signalling)
    else { return groups.count == 1 }
    for number in groups.indices {
      for index in groups[number].indices {
        if number > 0 { groups[number][index].waitsFor = groups[number - 1].compactMap(\.milestone) }
        groups[number][index].milestone = unused.popLast()
      }
    }
    return true
  }

  /// Sends off what may go now.
  private func pump() {
    let picked = state.withLock { state in
      var picked: [(StreamBatch, Int)] = []
      for kind in state.waiting.indices {
        let mine = kind == 0 ? 0...0 : 1...lanes.count - 1
        while let batch = state.waiting[kind].first,
          let lane = mine.min(by: { state.inFlight[$0] < state.inFlight[$1] }),
          state.inFlight[lane] < options.ioMaxCommandBuffers, hasScratch(state, batch)
        {
          _ = state.waiting[kind].popFirst()
          state.inFlight[lane] += 1
          state.scratchBytes += batch.scratchBytes
          state.bytesInFlight += batch.byteLength
          picked.append((batch, lane))
        }
      }
      return picked
    }
    for (batch, lane) in picked {
      lanes[lane].submit(batch) { bytesDone, failure in self.ended(batch, lane, bytesDone, failure) }
    }
  }

  private func hasScratch(_ state: State, _ batch: StreamBatch) -> Bool {
    batch.scratchBytes == 0 || state.scratchBytes == 0
      || batch.scratchBytes <= options.ioScratchBytes - state.scratchBytes
  }

  private func ended(_ batch: StreamBatch, _ lane: Int, _ bytesDone: Int, _ failure: Failure?) {
    state.withLock { state in
      state.inFlight[lane] -= 1
      state.scratchBytes -= batch.scratchBytes
      state.bytesInFlight -= batch.byteLength
    }
    if let failure { batch.run.fail(failure) }
    batch.run.batchesEnded(1, bytesDone: bytesDone)
    pump()
  }
}
