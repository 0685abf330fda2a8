import CHeadrace

/// Takes submissions and ends each with a row in the device's ring.
final class Queue: Resource, @unchecked Sendable {  // What changes is in `state`.
  /// Failed tickets whose text is kept.
  private static let failuresKept = 1024

  let device: Device
  private let state = Locked(State())
  private let gpuQueue = Locked<GPUQueue?>(nil)

  private struct State {
    /// The queue's handle, which rows name it by.
    var handle: hr_handle = 0
    var isClosed = false
    /// Tickets that are not quiet.
    var submissions: [Double: Submission] = [:]
    var failures: [Double: Failure] = [:]
    var failedTickets = Fifo<Double>()
  }

  init(device: Device) {
    self.device = device
    super.init(kind: .queue, device: device)
  }

  override class var kind: Kind { .queue }

  /// How rows name the queue: its handle.
  var number: Double { state.withLock { Double($0.handle) } }

  func opened(as handle: hr_handle) { state.withLock { $0.handle = handle } }

  /// Takes all requests, or none and throws. Gives the row where the ticket ended before return and `givesRow`.
  func submit(_ raw: hr_submission, ticket: Double, givesRow: Bool) throws(Failure) -> hr_completion? {
    try device.begin()
    defer { device.ended() }
    let program = try ProgramBuilder.build(raw, device: device)
    if program.needsGPU { _ = try gpu() }
    if givesRow, program.steps.count == 1, case .moves(let moves) = program.steps[0], moves.isCopiesOnly,
      device.inlineCopies.allow(moves.copyBytes)
    {
      return try copy(moves, ticket: ticket)
    }
    return try start(program, ticket: ticket, givesRow: givesRow)
  }

  /// Runs work of its own kind as a ticket.
  func run(ticket: Double, _ begin: @escaping @Sendable (@escaping Ended) -> any RunningWork) throws(Failure) {
    try device.begin()
    defer { device.ended() }
    _ = try start(Program(steps: [.work(begin)]), ticket: ticket, givesRow: false)
  }

  /// The ticket ends with `failure` unless it has ended.
  func cancel(ticket: Double, status: hr_status) throws(Failure) {
    guard status == Status.cancelled || status == Status.timedOut else {
      throw Failure(Status.invalid, "a ticket is cancelled with \(Status.cancelled) or \(Status.timedOut), not \(status)")
    }
    let submission = state.withLock { $0.submissions[ticket] }
    let how = status == Status.cancelled ? "was cancelled" : "has not ended in time"
    submission?.end(Failure(status, "ticket \(Int(ticket)) \(how)"))
  }

  /// Bytes of long work that a ticket has done; 0 for one that is over.
  func progress(of ticket: Double) -> Int {
    state.withLock { $0.submissions[ticket] }?.progress ?? 0
  }

  /// The failure of a ticket. HR_INVALID where it has none, or it is forgotten.
  func failure(of ticket: Double) throws(Failure) -> Failure {
    guard let failure = state.withLock({ $0.failures[ticket] }) else {
      throw Failure(Status.invalid, "no failure of ticket \(ticket) is kept; the last \(Self.failuresKept) are")
    }
    return failure
  }

  /// What runs on the GPU for this queue; made when first needed.
  func gpu() throws(Failure) -> GPUQueue {
    try gpuQueue.withLock { (gpuQueue) throws(Failure) in
      if let gpuQueue { return gpuQueue }
      let made = try GPUQueue(device: device)
      gpuQueue = made
      return made
    }
  }

  /// Cancels what is in flight; its rows still come.
  override func close() {
    let left = state.withLock { state in
      state.isClosed = true
      return Array(state.submissions.values)
    }
    for submission in left {
      submission.end(
        Failure(Status.cancelled, "ticket \(Int(submission.ticket)) was cancelled: its queue was closed"))
    }
  }

  /// Keeps the text of a failure.
  func note(_ failure: Failure, of ticket: Double) {
    state.withLock { state in
      state.failures[ticket] = failure
      state.failedTickets.append(ticket)
      guard state.failedTickets.count > Self.failuresKept, let oldest = state.failedTickets.popFirst() else { return }
      state.failures[oldest] = nil
    }
  }

  /// A submission has told that it is quiet.
  func quieted(_ submission: Submission) {
    state.withLock { $0.submissions[submission.ticket] = nil }
    device.ended()
  }

  /// Makes small copies that are all of a ticket. They are over before anyone could ask for it, so that it needs no
  /// ``Submission``.
  private func copy(_ moves: MoveStep, ticket: Double) throws(Failure) -> hr_completion {
    try Self.check(ticket)
    let number = try state.withLock { (state) throws(Failure) in
      try Self.checkFree(state, ticket)
      return Double(state.handle)
    }
    let submittedMs = clockMs()
    do throws(Failure) {
      let times = StageTimes(started: try device.inlineCopies.make(moves))
      return hr_completion(
        queue: number, ticket: ticket, status: Status.ok, flags: HR_ENDED | HR_QUIET, bytesDone: moves.copyBytes,
        submittedMs: submittedMs, times: times)
    } catch {
      note(error, of: ticket)
      return hr_completion(
        queue: number, ticket: ticket, status: error.status, flags: HR_ENDED | HR_QUIET, bytesDone: 0,
        submittedMs: submittedMs, times: StageTimes(), osErrno: error.osErrno)
    }
  }

  private func start(_ program: Program, ticket: Double, givesRow: Bool) throws(Failure) -> hr_completion? {
    try Self.check(ticket)
    let submission = Submission(queue: self, ticket: ticket, program: program, isCapturing: givesRow)
    try device.begin()
    do throws(Failure) {
      try register(submission)
    } catch {
      device.ended()
      throw error
    }
    var ready = ReadyList()
    ready.add(submission)
    ready.run()
    return givesRow ? submission.takeCaptured() : nil
  }

  private func register(_ submission: Submission) throws(Failure) {
    try state.withLock { (state) throws(Failure) in
      try Self.checkFree(state, submission.ticket)
      state.submissions[submission.ticket] = submission
    }
  }

  private static func check(_ ticket: Double) throws(Failure) {
    guard let number = wholeNumber(ticket), number > 0 else {
      throw Failure(Status.invalid, "a ticket is a whole number from 1 on, not \(ticket)")
    }
  }

  private static func checkFree(_ state: State, _ ticket: Double) throws(Failure) {
    if state.isClosed { throw Failure.closed("the queue") }
    guard state.submissions[ticket] == nil else {
      throw Failure(Status.invalid, "ticket \(Int(ticket)) is in flight already")
    }
  }
}
