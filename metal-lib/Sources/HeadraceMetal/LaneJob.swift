/// Moves that run side by side on lanes.
final class LaneJob: @unchecked Sendable {  // All but `tell` is called with the lanes' lock held, `tell` once and last.
  /// Pieces that no lane has taken, when each request stands alone.
  private(set) var piecesLeft = 0
  private var moves: [Move]
  private var keep: [any AnyObject & Sendable]
  private var ended: Ended?
  /// The next request to cut, and how far it is cut.
  private var move = 0
  private var cutBytes = 0
  /// Pieces that lanes are at.
  private var underWay = 0
  private var isOver = false
  private var end = RunEnd()

  init(moves: [Move], pieceBytes: Int, keep: [any AnyObject & Sendable], ended: @escaping Ended) {
    self.moves = moves
    self.keep = keep
    self.ended = ended
    for move in moves { piecesLeft += move.pieceCount(pieceBytes) }
  }

  /// The next piece: a part of a long request, or some short ones where many are left. nil at the end.
  func take(pieceBytes: Int, lanes: Int) -> LanePiece? {
    if end.failure != nil { piecesLeft = 0 }
    while piecesLeft > 0, moves[move].pieceCount(pieceBytes) == 0 { move += 1 }
    guard piecesLeft > 0 else { return nil }
    if end.times.started == 0 { end.times.started = clockMs() }
    underWay += 1
    let first = moves[move]
    if first.operation == .sync || first.byteLength >= pieceBytes {
      let piece = LanePiece(job: self, moves: moves[move...move], from: cutBytes, pieceBytes: pieceBytes)
      cutBytes += pieceBytes
      piecesLeft -= 1
      if cutBytes >= first.byteLength {
        move += 1
        cutBytes = 0
      }
      return piece
    }
    // Enough pieces for each lane to take several, so that a slow one does not hold up the others.
    let most = max(1, min(64, piecesLeft / (4 * lanes)))
    let start = move
    var bytes = 0
    while move < moves.count, move - start < most {
      let next = moves[move]
      bytes += next.byteLength
      if next.operation == .sync || bytes > pieceBytes { break }
      piecesLeft -= next.pieceCount(pieceBytes)
      move += 1
    }
    return LanePiece(job: self, moves: moves[start..<move], from: 0, pieceBytes: pieceBytes)
  }

  /// Counts a piece as done. Whether the job has ended by it.
  func count(_ piece: LanePiece) -> Bool {
    underWay -= 1
    end.bytesDone += piece.bytesDone
    if end.failure == nil { end.failure = piece.failure }
    return hasJustEnded()
  }

  /// No piece is taken any more; the job leaves the queue. Whether it has ended by it.
  func stop() -> Bool {
    piecesLeft = 0
    return hasJustEnded()
  }

  /// As ``stop()``, with a failure.
  func fail(_ failure: Failure) -> Bool {
    if end.failure == nil { end.failure = failure }
    return stop()
  }

  /// After the end, without the lock.
  func tell() {
    let ended = self.ended
    self.ended = nil
    moves = []
    ended?(end)
    keep = []
  }

  private func hasJustEnded() -> Bool {
    guard underWay == 0, piecesLeft == 0 || end.failure != nil, !isOver else { return false }
    isOver = true
    return true
  }
}

/// What a lane does at a time.
struct LanePiece {
  let job: LaneJob
  private let moves: ArraySlice<Move>
  /// Of a request that is cut.
  private let from: Int
  private let pieceBytes: Int
  private(set) var bytesDone = 0
  private(set) var failure: Failure?

  init(job: LaneJob, moves: ArraySlice<Move>, from: Int, pieceBytes: Int) {
    self.job = job
    self.moves = moves
    self.from = from
    self.pieceBytes = pieceBytes
  }

  /// Runs it on this thread up to the first failure.
  mutating func run(_ syncKind: Int32) {
    do throws(Failure) {
      var checked: Int32 = -1
      for move in moves {
        let count = min(move.byteLength - from, pieceBytes)
        // Once a piece for each file behind mappings: rows of one are most often copied together.
        let isChecked = move.operation == .copy && move.descriptor >= 0 && move.descriptor == checked
        try move.run(from: from, count: count, syncKind: syncKind, isSourceChecked: isChecked)
        if move.operation == .copy { checked = move.descriptor }
        if move.operation != .sync && move.operation != .touch { bytesDone += count }
      }
    } catch {
      failure = error
    }
  }
}
