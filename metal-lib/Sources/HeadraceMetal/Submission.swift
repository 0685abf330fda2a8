import CHeadrace
import Foundation

/// One ticket on its way: steps its program forward, and ends once, whatever comes first.
///
/// At any time either nobody steps it (`phase` says what it waits for) or exactly one thread does.
final class Submission: Waiter, @unchecked Sendable {  // What changes is in `state`.
  let queue: Queue
  let ticket: Double
  private let submittedMs = clockMs()
  private let state: Locked<State>

  private enum Phase {
    /// A thread steps it, or is about to.
    case stepping
    case waiting(token: Int, Event?)
    case working
    /// It has ended, and nobody uses its memory any more.
    case quiet
  }

  private struct State {
    /// Its own until it is quiet.
    var program: Program
    var phase = Phase.stepping
    var nextStep = 0
    /// Of the step under way, with one for who starts them.
    var partsLeft = 0
    var parts: [any RunningWork] = []
    var partFailure: Failure?
    var bytesDone = 0
    var times = StageTimes()
    var status: hr_status?
    var osErrno: Int32 = 0
    var hasToldEnd = false
    /// The row while the submitting call has not returned, and may give it back itself.
    var captured: hr_completion?
    var isCapturing: Bool

    /// Nobody steps it any more. Gives what was kept for it, to be let go before anyone is told.
    mutating func becomeQuiet() -> Program {
      phase = .quiet
      defer { program = Program() }
      return program
    }
  }

  /// With `isCapturing` the rows wait for ``takeCaptured()``.
  init(queue: Queue, ticket: Double, program: Program, isCapturing: Bool) {
    self.queue = queue
    self.ticket = ticket
    state = Locked(State(program: program, isCapturing: isCapturing))
  }

  /// Runs steps until one has to be waited for.
  func advance(_ ready: inout ReadyList) {
    while let step = takeStep() {
      do throws(Failure) {
        if try !start(step, &ready) { return }
      } catch {
        fail(error)
      }
    }
  }

  /// Ends the ticket unless it has ended. What is in use quiets down later.
  func end(_ failure: Failure) {
    var (event, token): (Event?, Int) = (nil, 0)
    var unused: Program?
    let parts: [any RunningWork] = state.withLock { state in
      guard settle(&state, failure) else { return [] }
      if case .waiting(token: let waiting, let on) = state.phase {
        token = waiting
        event = on
        unused = state.becomeQuiet()
        return []
      }
      post(&state, HR_ENDED)
      return state.parts
    }
    event?.forget(self, token: token)
    for part in parts { part.stop() }
    guard unused != nil else { return }
    unused = nil
    state.withLock { post(&$0, HR_ENDED | HR_QUIET) }
  }

  /// Bytes of long work under way that are done.
  var progress: Int {
    let parts = state.withLock { $0.parts }
    return parts.reduce(0) { $0 + $1.progress }
  }

  func wake(token: Int, failure: Failure?, ready: inout ReadyList) {
    let isMine = state.withLock { state in
      guard case .waiting(token: token, _) = state.phase else { return false }
      if failure == nil { state.phase = .stepping }
      return true
    }
    guard isMine else { return }
    if let failure { end(failure) } else { ready.add(self) }
  }

  /// The submitting call returns: gives the row where the ticket has ended and is quiet, to be told by that call. Else
  /// what was held back goes to the ring, as will what comes.
  func takeCaptured() -> hr_completion? {
    state.withLock { state in
      state.isCapturing = false
      guard let row = state.captured else { return nil }
      state.captured = nil
      if Int(row.flags) & HR_QUIET != 0 { return row }
      queue.device.completions.push(row)
      return nil
    }
  }

  /// The next step; nil where there is none, and then the ticket has ended and is quiet.
  private func takeStep() -> Step? {
    let step: Step? = state.withLock { state in
      guard state.status == nil, state.nextStep < state.program.steps.count else { return nil }
      state.nextStep += 1
      return state.program.steps[state.nextStep - 1]
    }
    if step == nil { finish() }
    return step
  }

  /// Notes a failure of a step; who steps sees it, and ends.
  private func fail(_ failure: Failure) { state.withLock { _ = settle(&$0, failure) } }

  /// Whether the failure is the ticket's outcome, because it has none yet.
  private func settle(_ state: inout State, _ failure: Failure) -> Bool {
    guard state.status == nil else { return false }
    state.status = failure.status
    state.osErrno = failure.osErrno
    queue.note(failure, of: ticket)
    return true
  }

  /// Ends, well where nothing has failed, and is quiet.
  private func finish() {
    var unused: Program? = state.withLock { state in
      state.status = state.status ?? Status.ok
      return state.becomeQuiet()
    }
    // Memory goes before anyone is told that it is not used.
    withExtendedLifetime(unused) {}
    unused = nil
    state.withLock { post(&$0, $0.hasToldEnd ? HR_QUIET : HR_ENDED | HR_QUIET) }
  }

  /// Writes the row out, with the lock held, so that rows come in order.
  private func post(_ state: inout State, _ flags: Int) {
    state.hasToldEnd = true
    let row = hr_completion(
      queue: queue.number, ticket: ticket, status: state.status ?? Status.ok, flags: flags, bytesDone: state.bytesDone,
      submittedMs: submittedMs, times: state.times, osErrno: state.osErrno)
    if state.isCapturing {
      var merged = state.captured ?? row
      merged.flags = Double(Int(merged.flags) | flags)
      state.captured = merged
    } else {
      queue.device.completions.push(row)
    }
    if flags & HR_QUIET != 0 { queue.quieted(self) }
  }
}

// MARK: - Steps

extension Submission {
  /// Starts a step. Whether it is over already; if not, someone else goes on when it is.
  private func start(_ step: Step, _ ready: inout ReadyList) throws(Failure) -> Bool {
    switch step {
    case .signal(let event, let value):
      try event.signal(value, ready: &ready)
      return true
    case .wait(let event, let value):
      return try wait(event) { (token) throws(Failure) in try event.wait(for: value, self, token: token) }
    case .latch(let latch):
      return try wait(nil) { (token) throws(Failure) in try latch.wait(self, token: token) }
    case .moves(let moves):
      if try copyInline(moves) { return true }
      return try run { (start) throws(Failure) in try queue.start(moves, start) }
    case .loads(let loads):
      if !loads.operations.isEmpty { try checkFiles() }
      return try run { (start) throws(Failure) in try queue.start(loads, start) }
    case .gpu(let operations):
      try checkFiles()
      let gpu = try queue.gpu()
      return try run { start in start { gpu.start(operations, ended: $0) } }
    case .work(let begin):
      return try run { start in start(begin) }
    }
  }

  /// `register` asks for a wake-up unless what is waited for is there, and says whether it is.
  private func wait(_ event: Event?, _ register: (Int) throws(Failure) -> Bool) throws(Failure) -> Bool {
    let token: Int = state.withLock { state in
      state.phase = .waiting(token: state.nextStep, event)
      return state.nextStep
    }
    let isThere: Bool
    do throws(Failure) {
      isThere = try register(token)
    } catch {
      // A cancel that came in between has made it quiet.
      guard resume(token) else { return false }
      throw error
    }
    if isThere { return resume(token) }
    guard state.withLock({ $0.status != nil }) else { return false }
    // A cancel that came before the wait has left the rest to us; one that came since found nothing to take back.
    event?.forget(self, token: token)
    return resume(token)
  }

  /// Steps on, unless the ticket was cancelled meanwhile, which then has made it quiet.
  private func resume(_ token: Int) -> Bool {
    state.withLock { state in
      guard case .waiting(token: token, _) = state.phase else { return false }
      state.phase = .stepping
      return true
    }
  }

  /// Makes small copies on the submitting thread, where more follows: alone, they are the queue's. Whether it has.
  private func copyInline(_ moves: MoveStep) throws(Failure) -> Bool {
    let mayCopy = state.withLock { $0.isCapturing && $0.nextStep == 1 && $0.program.steps.count > 1 }
    let inline = queue.device.inlineCopies
    guard mayCopy, moves.isCopiesOnly, inline.allow(moves.copyBytes) else { return false }
    let startedMs = try inline.make(moves)
    state.withLock { state in
      state.bytesDone += moves.copyBytes
      state.times.started = startedMs
    }
    return true
  }

  private func checkFiles() throws(Failure) {
    let mappings = state.withLock { $0.program.mappings }
    for mapping in mappings { try mapping.checkFile() }
  }

  /// Starts the parts of a step, which run side by side. Whether all are over already.
  private func run(_ startAll: ((Part) -> Void) throws(Failure) -> Void) throws(Failure) -> Bool {
    state.withLock { state in
      state.phase = .working
      state.partsLeft = 1
      state.partFailure = nil
    }
    var failure: Failure?
    do throws(Failure) {
      try startAll { begin in
        state.withLock { $0.partsLeft += 1 }
        let part = begin { [self] end in partEnded(end) }
        let mustStop = state.withLock { state in
          state.parts.append(part)
          return state.status != nil || state.partFailure != nil
        }
        if mustStop { part.stop() }
      }
    } catch {
      failure = error
      stopParts()
    }
    return countPart(RunEnd(failure: failure))
  }

  private func partEnded(_ end: RunEnd) {
    let isOver = autoreleasepool { countPart(end) }
    if end.failure != nil { stopParts() }
    guard isOver else { return }
    var ready = ReadyList()
    ready.add(self)
    ready.run()
  }

  /// Counts a part as over. Whether all are, and stepping goes on.
  private func countPart(_ end: RunEnd) -> Bool {
    let (isOver, failure): (Bool, Failure?) = state.withLock { state in
      if state.status == nil { state.bytesDone += end.bytesDone }
      state.times.merge(end.times)
      if state.partFailure == nil { state.partFailure = end.failure }
      state.partsLeft -= 1
      guard state.partsLeft == 0 else { return (false, nil) }
      state.parts = []
      state.phase = .stepping
      return (true, state.partFailure)
    }
    if let failure { fail(failure) }
    return isOver
  }

  private func stopParts() {
    let parts = state.withLock { $0.parts }
    for part in parts { part.stop() }
  }
}
