import CHeadrace

/// State behind a mutex. Bodies are short, take no other lock and call nobody back.
class Locked<State>: @unchecked Sendable {  // All access to `state` holds the lock.
  fileprivate final let lock = Lock()
  fileprivate final var state: State

  init(_ state: sending State) { self.state = state }

  final func withLock<R, E: Error>(_ body: (inout State) throws(E) -> R) throws(E) -> R {
    lock.lock()
    defer { lock.unlock() }
    return try body(&state)
  }
}

/// ``Locked`` with a condition that threads wait for.
final class Gate<State>: Locked<State>, @unchecked Sendable {
  /// Calls `take` under the lock, now and after each wake-up, until it gives something; nil after `timeoutMs`
  /// (nil waits for ever).
  func wait<R>(until take: (inout State) -> R?, timeoutMs: Double? = nil) -> R? {
    let deadline = timeoutMs.map { clockMs() + $0 }
    lock.lock()
    defer { lock.unlock() }
    while true {
      if let taken = take(&state) { return taken }
      guard let deadline else {
        lock.wait(timeoutMs: -1)
        continue
      }
      let left = deadline - clockMs()
      if left <= 0 { return nil }
      lock.wait(timeoutMs: left)
    }
  }

  /// Wakes one thread that waits.
  func signal() { lock.signal() }
  /// Wakes all threads that wait.
  func broadcast() { lock.broadcast() }
}

/// A mutex and condition variable of the system at an address that never moves.
private final class Lock: @unchecked Sendable {  // Made to be used by many threads.
  private let gate: OpaquePointer

  init() {
    guard let gate = hr_gate_create() else { preconditionFailure("no memory for a lock of 128 bytes") }
    self.gate = gate
  }

  deinit { hr_gate_destroy(gate) }

  func lock() { hr_gate_lock(gate) }
  func unlock() { hr_gate_unlock(gate) }
  func wait(timeoutMs: Double) { hr_gate_wait(gate, timeoutMs) }
  func signal() { hr_gate_signal(gate) }
  func broadcast() { hr_gate_broadcast(gate) }
}
