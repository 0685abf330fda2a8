/// Copies that the submitting thread makes itself. Waking a lane and hearing back from it takes about as long as copying
/// a mebibyte, so small submissions are faster at once. A copy out of a mapping may wait for a disk, though, which is seen
/// by the time that it took: then lanes take the next ones.
final class InlineCopies: Sendable {
  /// A copy is slow when it takes longer than this, and longer than memory ever takes for its bytes.
  private static let slowMs = 0.5
  private static let slowBytesPerMs = 1e6
  /// Submissions that go to the lanes after a slow one.
  private static let penalty = 64

  private let maxBytes: Int
  private let penalty = Locked(0)

  /// Submissions of copies up to `maxBytes` in all qualify.
  init(maxBytes: Int) { self.maxBytes = maxBytes }

  /// Whether to copy `bytes` on the calling thread now, by ``make(_:)``.
  func allow(_ bytes: Int) -> Bool {
    if bytes > maxBytes { return false }
    return penalty.withLock { penalty in
      if penalty == 0 { return true }
      penalty -= 1
      return false
    }
  }

  /// Makes the copies of a step that has nothing else; gives when it began. The files behind mappings were looked at
  /// right before. HR_FILE_CHANGED.
  func make(_ step: MoveStep) throws(Failure) -> Double {
    let startedMs = clockMs()
    for move in step.reads { try move.run(from: 0, count: move.byteLength, syncKind: 0, isSourceChecked: true) }
    took(step.copyBytes, ms: clockMs() - startedMs)
    return startedMs
  }

  private func took(_ bytes: Int, ms: Double) {
    if ms > Self.slowMs + Double(bytes) / Self.slowBytesPerMs { penalty.withLock { $0 = Self.penalty } }
  }
}
