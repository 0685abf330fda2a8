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
  /// The most loads of a command buffer; MTLIO takes fewer than 8192.
  static let maxLoads = 256
  /// Compressed loads are cut at multiples of it, so that one load keeps several queues busy and no chunk, which
  /// is a power of two up to this, is decoded twice.
  static let compressedPieceBytes = 1 << 20

  private struct State {
    var waiting: [Fifo<StreamBatch>] = [Fifo(), Fifo()]
    /// Command buffers in flight, by lane.
    var inFlight: [Int]
    var scratchBytes = 0
    var runs: [ObjectIdentifier: StreamRun] = [:]
    var isClosed = false
  }

  let scratch: ScratchAllocator
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
    lanes = (0...options.ioQueues).map { StreamLane(number: $0, metal: metal, options: options, scratch: scratch) }
    state = Locked(State(inFlight: [Int](repeating: 0, count: options.ioQueues + 1)))
  }

  /// See ``StreamFile/init(metal:path:codec:byteLength:)``.
  func open(path: String, codec: UInt32, byteLength: Int) throws(Failure) -> StreamFile {
    try StreamFile(metal: metal, path: path, codec: codec, byteLength: byteLength)
  }

  /// Starts loads that run side by side in any order. HR_SHORT_READ, HR_FILE_CHANGED, HR_OUT_OF_RANGE where a file
  /// does not have the bytes, now or at the end; HR_IO, HR_CORRUPT (of a compressed file) where MTLIO fails;
  /// HR_OUT_OF_MEMORY without scratch memory; HR_CANCELLED after a stop, HR_CLOSED after ``close()``.
  func start(_ loads: [StreamLoad], ended: @escaping Ended) -> any RunningWork {
    let run = StreamRun(streams: self, loads: loads, ended: ended)
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
      let batches = cut(run)
      run.expect(batches.count)
      // A run that was stopped before now takes its batches back itself, or never gives them.
      state.withLock { state in
        for batch in batches { state.waiting[batch.isCompressed ? 1 : 0].append(batch) }
      }
    } catch {
      run.fail(error)
    }
    if run.isStopping { drop(run) }
    run.batchesEnded(1)
    pump()
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

  private func cut(_ run: StreamRun) -> [StreamBatch] {
    var batches: [StreamBatch] = []
    for isCompressed in [false, true] {
      let most = isCompressed ? min(Self.compressedPieceBytes, options.pieceBytes) : options.pieceBytes
      var batch = StreamBatch(run: run, isCompressed: isCompressed)
      for load in run.loads where (load.file.codec != nil) == isCompressed {
        var done = 0
        while done < load.byteLength {
          let start = load.fileOffset + done
          // Up to the next multiple in the file.
          let length = min(load.byteLength - done, most - start % most)
          if batch.loads.count == Self.maxLoads || (batch.byteLength > 0 && batch.byteLength + length > most) {
            batches.append(batch)
            batch = StreamBatch(run: run, isCompressed: isCompressed)
          }
          batch.add(
            StreamLoad(
              file: load.file, fileOffset: start, target: load.target, targetOffset: load.targetOffset + done,
              byteLength: length, request: load.request))
          done += length
        }
      }
      if !batch.loads.isEmpty { batches.append(batch) }
    }
    return batches
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
    }
    if let failure { batch.run.fail(failure) }
    batch.run.batchesEnded(1, bytesDone: bytesDone)
    pump()
  }
}
