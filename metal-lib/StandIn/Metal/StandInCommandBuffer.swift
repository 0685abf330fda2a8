// Command buffers: they hold what was encoded, run it once, and tell how it went.
import CStandIn
import Foundation

public final class StandInCommandBuffer: NSObject, MTLCommandBuffer, @unchecked Sendable {
  // Sendable because all that changes is behind `state`, but the label, which only the program that sets it reads.
  private enum Command {
    case work([BufferReference], @Sendable ([StandInBuffer]) throws(MTLCommandBufferError) -> Void)
    case wait(StandInEvent, UInt64)
    case signal(StandInEvent, UInt64)
  }

  private struct State {
    var status = MTLCommandBufferStatus.notEnqueued
    var isCommitted = false
    var isEncoding = false
    var hasSlot = true
    var commands: [Command] = []
    var residencySets: [StandInResidencySet] = []
    var scheduledHandlers: [MTLCommandBufferHandler] = []
    var completedHandlers: [MTLCommandBufferHandler] = []
    var fault = standin_outcome()
    var failure: MTLCommandBufferError.Code?
    var kernelStart = 0.0
    var kernelEnd = 0.0
    var gpuStart = 0.0
    var gpuEnd = 0.0
  }

  let queue: StandInCommandQueue
  public let retainedReferences: Bool
  public let errorOptions: MTLCommandBufferErrorOption
  public var label: String?
  private let state = Guarded(State())

  init(queue: StandInCommandQueue, retained: Bool, errorOptions: MTLCommandBufferErrorOption) {
    self.queue = queue
    retainedReferences = retained
    self.errorOptions = errorOptions
    super.init()
    standin_count(UInt32(STANDIN_LIVE_COMMAND_BUFFERS), 1)
  }

  deinit {
    standin_count(UInt32(STANDIN_LIVE_COMMAND_BUFFERS), -1)
    if state.withLock({ $0.hasSlot }) { queue.giveBackSlot() }
  }

  var owner: StandInDevice { queue.owner }
  public var device: any MTLDevice { queue.owner }
  public var commandQueue: any MTLCommandQueue { queue }
  public var status: MTLCommandBufferStatus { state.withLock { $0.status } }
  public var kernelStartTime: CFTimeInterval { state.withLock { $0.kernelStart } }
  public var kernelEndTime: CFTimeInterval { state.withLock { $0.kernelEnd } }
  public var gpuStartTime: CFTimeInterval { state.withLock { $0.gpuStart } }
  public var gpuEndTime: CFTimeInterval { state.withLock { $0.gpuEnd } }
  var isCommitted: Bool { state.withLock { $0.isCommitted } }

  public var error: (any Error)? {
    guard let code = state.withLock({ $0.status == .error ? $0.failure : nil }) else { return nil }
    return NSError(
      domain: MTLCommandBufferErrorDomain, code: Int(code.rawValue),
      userInfo: [NSLocalizedDescriptionKey: "the command buffer ended with \(code)"])
  }

  // MARK: Encoding

  public func makeBlitCommandEncoder() -> (any MTLBlitCommandEncoder)? {
    StandInBlitEncoder(self)
  }

  /// One encoder at a time.
  func openEncoder() {
    change("an encoder") { $0.isEncoding = true }
  }

  func closeEncoder() {
    state.withLock { $0.isEncoding = false }
  }

  /// Appends what an encoder recorded. `work` gets the buffers in the order in which they are given here, and may
  /// fail the whole command buffer by its error. It must not keep buffers alive by itself.
  func append(
    using buffers: [StandInBuffer], _ work: @escaping @Sendable ([StandInBuffer]) throws(MTLCommandBufferError) -> Void
  ) {
    let references = buffers.map { BufferReference($0, retained: retainedReferences) }
    state.withLock { $0.commands.append(.work(references, work)) }
  }

  public func encodeWaitForEvent(_ event: any MTLEvent, value: UInt64) {
    let event = StandInEvent.of(event, on: owner, "encodeWaitForEvent")
    change("encodeWaitForEvent") { $0.commands.append(.wait(event, value)) }
  }

  public func encodeSignalEvent(_ event: any MTLEvent, value: UInt64) {
    let event = StandInEvent.of(event, on: owner, "encodeSignalEvent")
    change("encodeSignalEvent") { $0.commands.append(.signal(event, value)) }
  }

  public func useResidencySet(_ residencySet: any MTLResidencySet) {
    let set = StandInResidencySet.of(residencySet, on: owner, "useResidencySet")
    change("useResidencySet") { $0.residencySets.append(set) }
  }

  public func useResidencySets(_ residencySets: [any MTLResidencySet]) {
    for set in residencySets { useResidencySet(set) }
  }

  public func addScheduledHandler(_ block: @escaping MTLCommandBufferHandler) {
    state.withLock { state in
      if state.isCommitted { trap("addScheduledHandler after commit") }
      state.scheduledHandlers.append(block)
    }
  }

  public func addCompletedHandler(_ block: @escaping MTLCommandBufferHandler) {
    state.withLock { state in
      if state.isCommitted { trap("addCompletedHandler after commit") }
      state.completedHandlers.append(block)
    }
  }

  public func pushDebugGroup(_ string: String) {}
  public func popDebugGroup() {}

  /// Changes what is encoded, which is possible before commit and while no encoder is open.
  private func change(_ call: String, _ body: (inout State) -> Void) {
    state.withLock { state in
      if state.isCommitted { trap("\(call) after commit") }
      if state.isEncoding { trap("\(call) while an encoder is open") }
      body(&state)
    }
  }

  // MARK: Committing

  public func enqueue() {
    let isNew = state.withLock { state in
      if state.status != .notEnqueued { return false }
      state.status = .enqueued
      return true
    }
    if isNew { queue.enqueue(self) }
  }

  public func commit() {
    if state.withLock({ $0.isCommitted }) { trap("commit of a command buffer that is already committed") }
    if state.withLock({ $0.isEncoding }) { trap("commit while an encoder is open") }
    // Counted here, so that faults follow the order of commits.
    let fault = standin_meet(UInt32(STANDIN_COMMAND_BUFFER))
    enqueue()
    state.withLock { state in
      state.isCommitted = true
      state.status = .committed
      state.fault = fault
    }
    queue.pump()
  }

  public func waitUntilScheduled() {
    waitFor(.scheduled, "waitUntilScheduled")
  }

  public func waitUntilCompleted() {
    waitFor(.completed, "waitUntilCompleted")
  }

  private func waitFor(_ status: MTLCommandBufferStatus, _ call: String) {
    _ = state.wait { state -> Bool? in
      if !state.isCommitted { trap("\(call) before commit") }
      return state.status.rawValue >= status.rawValue ? true : nil
    }
  }

  // MARK: Running, on the queue's thread

  /// Does the work. An injected failure comes half-way, as a failing GPU leaves part of the work done.
  func run() {
    let (commands, fault) = schedule()
    var failure: MTLCommandBufferError.Code?
    if fault.met != 0, fault.code != 0 {
      failure = MTLCommandBufferError.Code(rawValue: UInt(fault.code)) ?? .internal
    }
    let count = failure == nil ? commands.count : commands.count / 2
    for command in commands.prefix(count) {
      if let code = owner.isRemoved ? .deviceRemoved : Self.perform(command) {
        failure = code
        break
      }
    }
    if owner.isRemoved { failure = .deviceRemoved }
    for case .work(let references, _) in commands { references.forEach { $0.checkAlive() } }
    let delay = fault.delay_us + queue.nextDelay()
    if delay > 0 { usleep(delay) }
    if failure == .deviceRemoved { owner.remove() }
    owner.noteRun()
    let ended = failure
    state.withLock { state in
      state.gpuEnd = hostSeconds()
      state.failure = ended
    }
  }

  private func schedule() -> ([Command], standin_outcome) {
    let (commands, fault, handlers) = state.withLock { state in
      state.kernelStart = hostSeconds()
      state.status = .scheduled
      let handlers = state.scheduledHandlers
      state.scheduledHandlers = []
      state.kernelEnd = hostSeconds()
      state.gpuStart = state.kernelEnd
      return (state.commands, state.fault, handlers)
    }
    queue.callHandlers { handlers.forEach { $0(self) } }
    return (commands, fault)
  }

  private static func perform(_ command: Command) -> MTLCommandBufferError.Code? {
    switch command {
    case .work(let references, let work):
      do throws(MTLCommandBufferError) {
        try work(references.map { $0.buffer() })
        return nil
      } catch {
        return error.code
      }
    case .wait(let event, let value):
      _ = standin_meet(UInt32(STANDIN_GPU_WAIT))
      return event.waitOnQueue(for: value) ? nil : .deviceRemoved
    case .signal(let event, let value):
      event.signaledValue = value
      return nil
    }
  }

  /// Lets go of what was used and tells that it is over. The status is final before anything waits or is called.
  func finish() {
    let (handlers, commands) = state.withLock { state in
      let parts = (state.completedHandlers, state.commands)
      state.completedHandlers = []
      state.commands = []
      state.residencySets = []
      state.hasSlot = false
      state.status = state.failure == nil ? .completed : .error
      return parts
    }
    queue.giveBackSlot()
    // As on a GPU, what the command buffer used may end at any time after completion, on any thread.
    queue.callHandlers {
      handlers.forEach { $0(self) }
      withExtendedLifetime(commands) {}
    }
  }
}

/// A buffer that a command uses, kept alive or not.
final class BufferReference: @unchecked Sendable {
  // Sendable because it is constant; the weak reference only ever becomes nil, which is atomic.
  private let retained: StandInBuffer?
  private weak var unretained: StandInBuffer?

  init(_ buffer: StandInBuffer, retained: Bool) {
    self.retained = retained ? buffer : nil
    unretained = buffer
  }

  func buffer() -> StandInBuffer {
    guard let buffer = unretained else {
      trap("a buffer was freed before a command buffer with unretained references had ended")
    }
    return buffer
  }

  func checkAlive() {
    _ = buffer()
  }
}
