/// `length` rounded up to a multiple of `unit`, a power of two; nil where that is above Int.max.
func roundUp(_ length: Int, to unit: Int) -> Int? {
  let (sum, overflow) = length.addingReportingOverflow(unit - 1)
  return overflow ? nil : sum & ~(unit - 1)
}

/// The whole pages around a range of a file.
struct Window: Equatable, Sendable {
  /// Where they start in the file.
  let start: Int
  let byteLength: Int
  /// Where the range starts in them.
  let offset: Int

  /// nil where the pages end above Int.max. `offset` and `byteLength` are not negative.
  init?(offset: Int, byteLength: Int, pageSize: Int) {
    start = offset & ~(pageSize - 1)
    self.offset = offset - start
    let (end, overflow) = self.offset.addingReportingOverflow(byteLength)
    guard !overflow, let length = roundUp(end, to: pageSize) else { return nil }
    guard !start.addingReportingOverflow(length).overflow else { return nil }
    self.byteLength = length
  }
}

/// Whether `[offset, offset + byteLength)` lies in `[0, length)`.
func contains(_ length: Int, _ offset: Int, _ byteLength: Int) -> Bool {
  offset >= 0 && byteLength >= 0 && byteLength <= length && offset <= length - byteLength
}

/// A count in an ABI's double: whole, and in `[0, 2^53)`.
func wholeNumber(_ value: Double) -> Int? {
  guard value >= 0, value < 9_007_199_254_740_992 else { return nil }
  let whole = Int(value)
  return Double(whole) == value ? whole : nil
}
