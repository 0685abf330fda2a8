/// What goes into one command buffer.
struct StreamBatch: Sendable {
  /// The most loads of one; MTLIO takes fewer than 8192 commands.
  static let maxLoads = 256

  let run: StreamRun
  let isCompressed: Bool
  private(set) var loads: [StreamLoad] = []
  /// Loads before which a barrier stands: those from there on start when all before them are done.
  private(set) var barriers: [Int] = []
  private(set) var byteLength = 0
  /// An estimate from above of the scratch memory that MTLIO will ask for: the stored bytes of compressed loads, which
  /// are fewer than the content's but for chunks at both ends, and the whole of loads into private memory.
  private(set) var scratchBytes = 0
  /// Reached when the batch is over.
  var milestone: Milestone?
  /// Of the batches that must be over before it starts.
  var waitsFor: [Milestone] = []

  /// The request that all loads belong to; nil where there are several, or none is known.
  var request: Int? {
    guard let first = loads.first?.request else { return nil }
    return loads.allSatisfy { $0.request == first } ? first : nil
  }

  init(run: StreamRun, isCompressed: Bool) {
    self.run = run
    self.isCompressed = isCompressed
  }

  mutating func add(_ load: StreamLoad) {
    loads.append(load)
    byteLength += load.byteLength
    if isCompressed { scratchBytes += load.byteLength + ScratchAllocator.granule }
    if load.target.isPrivate { scratchBytes += load.byteLength }
  }

  /// Puts the loads of `other` behind its own; false where they do not fit into one command buffer of `most` bytes.
  mutating func follow(by other: StreamBatch, most: Int) -> Bool {
    guard other.isCompressed == isCompressed, loads.count + other.loads.count <= Self.maxLoads,
      byteLength + other.byteLength <= most
    else { return false }
    barriers.append(loads.count)
    for load in other.loads { add(load) }
    return true
  }
}

/// Cuts loads into batches.
struct StreamCutter {
  /// Compressed loads are cut at multiples of it, so that one load keeps several queues busy and no chunk, which
  /// is a power of two up to this, is decoded twice.
  static let compressedPieceBytes = 1 << 20

  let run: StreamRun
  let pieceBytes: Int

  /// Batches of a group may run side by side; each group comes after the one before it.
  func groups(of phases: [[StreamLoad]]) -> [[StreamBatch]] {
    var groups: [[StreamBatch]] = []
    for loads in phases {
      let batches = [false, true].flatMap { cut(loads, isCompressed: $0) }
      if groups.count == 1, groups[0].count == 1, batches.count == 1,
        groups[0][0].follow(by: batches[0], most: most(batches[0].isCompressed))
      {
        continue
      }
      if !batches.isEmpty { groups.append(batches) }
    }
    return groups
  }

  private func most(_ isCompressed: Bool) -> Int {
    isCompressed ? min(Self.compressedPieceBytes, pieceBytes) : pieceBytes
  }

  private func cut(_ loads: [StreamLoad], isCompressed: Bool) -> [StreamBatch] {
    let most = most(isCompressed)
    var batches: [StreamBatch] = []
    var batch = StreamBatch(run: run, isCompressed: isCompressed)
    for load in loads where (load.file.codec != nil) == isCompressed {
      var done = 0
      while done < load.byteLength {
        let start = load.fileOffset + done
        // Up to the next multiple in the file.
        let length = min(load.byteLength - done, most - start % most)
        if batch.loads.count == StreamBatch.maxLoads || (batch.byteLength > 0 && batch.byteLength + length > most) {
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
    return batches
  }
}
