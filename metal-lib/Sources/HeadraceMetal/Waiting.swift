/// Who waits for an event or a latch.
protocol Waiter: AnyObject, Sendable {
  /// What was waited for under `token` came, or will never come. Called with no lock held, and puts what can go on now
  /// into `ready` instead of running it, so that long chains of signals need no deep stack.
  func wake(token: Int, failure: Failure?, ready: inout ReadyList)
}

/// Submissions that can go on.
struct ReadyList {
  private var submissions = Fifo<Submission>()

  mutating func add(_ submission: Submission) { submissions.append(submission) }

  /// Steps each forward, and those that they wake.
  mutating func run() {
    while let next = submissions.popFirst() { next.advance(&self) }
  }
}

/// Something that happens once, well or not, and that may be waited for.
final class Latch: Sendable {
  private struct State {
    var isOpen = false
    var failure: Failure?
    var waiters: [(waiter: any Waiter, token: Int)] = []
  }

  private let state = Locked(State())

  /// Whether it has opened well.
  var isOpen: Bool { state.withLock { $0.isOpen && $0.failure == nil } }

  /// Whether it is open; if not, wakes `waiter` when it is. Throws what it opened with.
  func wait(_ waiter: any Waiter, token: Int) throws(Failure) -> Bool {
    try state.withLock { (state) throws(Failure) in
      if let failure = state.failure { throw failure }
      if !state.isOpen { state.waiters.append((waiter, token)) }
      return state.isOpen
    }
  }

  /// Opens it for good. Only the first call counts.
  func open(_ failure: Failure?) {
    let waiters = state.withLock { state in
      guard !state.isOpen else { return state.waiters }
      state.isOpen = true
      state.failure = failure
      let waiters = state.waiters
      state.waiters = []
      return waiters
    }
    var ready = ReadyList()
    for (waiter, token) in waiters { waiter.wake(token: token, failure: failure, ready: &ready) }
    ready.run()
  }
}
