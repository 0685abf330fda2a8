import CHeadrace

/// The ring of a device's completions: grows with what ends before it is polled.
///
/// One byte goes to the caller's end of a socket pair when a row comes while the ring was drained. The caller's end
/// shows its end of file when the device has been torn down, and is closed when all rows were taken after that.
final class Completions: Sendable {
  /// The end that the caller watches.
  let wakeDescriptor: Int32
  private let peer: Int32
  private let gate = Gate(State())

  private struct State {
    var rows = Fifo<hr_completion>()
    /// The next row is announced by a byte.
    var isArmed = true
    var isFinished = false
    var isReleased = false
    var waiting = 0
    var whenReleased: (@Sendable () -> Void)?
  }

  /// HR_IO.
  init() throws(Failure) {
    var ends: [Int32] = [-1, -1]
    let result = hr_socket_pair(&ends)
    if result < 0 { throw Failure.io("making a socket pair", errno: -result) }
    wakeDescriptor = ends[0]
    peer = ends[1]
  }

  deinit {
    let (isFinished, isReleased) = gate.withLock { ($0.isFinished, $0.isReleased) }
    if !isFinished { _ = hr_close_descriptor(peer) }
    if !isReleased { _ = hr_close_descriptor(wakeDescriptor) }
  }

  func push(_ row: hr_completion) {
    let isWaitedFor = gate.withLock { state in
      state.rows.append(row)
      if state.isArmed {
        state.isArmed = false
        // Under the lock, so that the peer is not closed meanwhile.
        if !state.isFinished { _ = hr_write_wake(peer) }
      }
      return state.waiting > 0
    }
    if isWaitedFor { gate.broadcast() }
  }

  /// Moves rows out. HR_CLOSED once finished and empty.
  func poll(_ out: UnsafeMutablePointer<hr_completion>?, capacity: Int) throws(Failure) -> Int {
    let (taken, released) = gate.withLock { state in
      let taken = Self.take(&state, out, capacity)
      let isOver = state.isFinished && state.rows.isEmpty
      return (taken == 0 && isOver ? -1 : taken, release(&state))
    }
    released?()
    if taken < 0 { throw Failure.closed("the device") }
    return taken
  }

  /// Waits up to `timeoutMs` for a row; 0 where none came. HR_CLOSED once finished and empty.
  func wait(_ out: UnsafeMutablePointer<hr_completion>?, capacity: Int, timeoutMs: Double) throws(Failure) -> Int {
    gate.withLock { $0.waiting += 1 }
    let taken = gate.wait(
      until: { state in
        let taken = Self.take(&state, out, capacity)
        if taken > 0 { return taken }
        return state.isFinished ? -1 : nil
      }, timeoutMs: timeoutMs)
    let released = gate.withLock { state in
      state.waiting -= 1
      return release(&state)
    }
    released?()
    if taken == -1 { throw Failure.closed("the device") }
    return taken ?? 0
  }

  /// No row comes any more. `whenReleased` is called when all rows were taken and both ends are closed.
  func finish(_ whenReleased: @escaping @Sendable () -> Void) {
    let released = gate.withLock { state in
      state.isFinished = true
      state.whenReleased = whenReleased
      _ = hr_close_descriptor(peer)
      return release(&state)
    }
    gate.broadcast()
    released?()
  }

  private func release(_ state: inout State) -> (@Sendable () -> Void)? {
    guard state.isFinished, state.rows.isEmpty, !state.isReleased else { return nil }
    state.isReleased = true
    _ = hr_close_descriptor(wakeDescriptor)
    defer { state.whenReleased = nil }
    return state.whenReleased
  }

  private static func take(_ state: inout State, _ out: UnsafeMutablePointer<hr_completion>?, _ capacity: Int) -> Int {
    var taken = 0
    while let out, taken < capacity, let row = state.rows.popFirst() {
      out[taken] = row
      taken += 1
    }
    if state.rows.isEmpty { state.isArmed = true }
    return taken
  }
}
