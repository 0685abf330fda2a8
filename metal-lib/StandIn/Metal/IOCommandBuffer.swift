// One MTLIO command buffer: encoding, and its way through its commands.
import CStandIn
import Foundation

private enum IOCommand {
  case load(IOLoad)
  case barrier
  case wait(any MTLSharedEvent, UInt64)
  case signal(any MTLSharedEvent, UInt64)
}

final class StandInIOCommandBuffer: NSObject, MTLIOCommandBuffer, @unchecked Sendable {
  static let maxCommands = 8191

  private let engine: IOEngine
  private let retainsReferences: Bool
  // Guarded by the engine's lock.
  private var commands: [IOCommand] = []
  private var statusCopies: [(buffer: IOReference<StandInBuffer>, offset: Int)] = []
  private var handlers: [MTLIOCommandBufferHandler] = []
  private(set) var isCommitted = false
  private var isEnqueued = false
  private var next = 0
  private var pending = 0
  private var isWaiting = false
  private var wantsCancel = false
  private var wasSkipped = false
  private var failure: NSError?
  private var endDelay: UInt32 = 0
  private var finalStatus = MTLIOStatus.pending
  private var labelText: String?
  private var debugGroups = 0

  init(engine: IOEngine, retainsReferences: Bool) {
    self.engine = engine
    self.retainsReferences = retainsReferences
  }

  private func locked<R>(_ body: () -> R) -> R {
    engine.condition.lock()
    defer { engine.condition.unlock() }
    return body()
  }

  var label: String? {
    get { locked { labelText } }
    set { locked { labelText = newValue } }
  }
  var status: MTLIOStatus { locked { finalStatus } }
  var error: (any Error)? { locked { finalStatus == .pending ? nil : failure } }

  // MARK: Encoding

  private func encode(_ command: IOCommand) {
    locked {
      if isCommitted { trap("MTLIO: a command is encoded after commit") }
      if commands.count == Self.maxCommands { trap("MTLIO: more than \(commands.count) commands in a command buffer") }
      commands.append(command)
    }
  }

  private func own(_ buffer: any MTLBuffer) -> StandInBuffer {
    guard let buffer = buffer as? StandInBuffer else { trap("MTLIO: the buffer is not one of this Metal") }
    if buffer.device !== engine.device { trap("MTLIO: the buffer belongs to another device") }
    return buffer
  }

  private func load(
    into target: IOLoad.Target, size: Int, from handle: any MTLIOFileHandle, at handleOffset: Int
  ) {
    guard let handle = handle as? StandInIOFileHandle else { trap("MTLIO: the file handle is not one of this Metal") }
    if handle.device !== engine.device { trap("MTLIO: the file handle belongs to another device than the queue") }
    if size <= 0 || handleOffset < 0 { trap("MTLIO: a load of \(size) bytes from offset \(handleOffset)") }
    let reference = IOReference(handle, kept: retainsReferences)
    encode(.load(IOLoad(target: target, size: size, handle: reference, handleOffset: handleOffset)))
  }

  func load(
    _ buffer: any MTLBuffer, offset: Int, size: Int, sourceHandle: any MTLIOFileHandle, sourceHandleOffset: Int
  ) {
    let buffer = own(buffer)
    if offset < 0 || offset > buffer.length || size > buffer.length - offset {
      trap("MTLIO: a load into [\(offset), \(offset) + \(size)) of a buffer of \(buffer.length) bytes")
    }
    let target = IOLoad.Target.buffer(IOReference(buffer, kept: retainsReferences), offset: offset)
    load(into: target, size: size, from: sourceHandle, at: sourceHandleOffset)
  }

  func loadBytes(
    _ pointer: UnsafeMutableRawPointer, size: Int, sourceHandle: any MTLIOFileHandle, sourceHandleOffset: Int
  ) {
    load(into: .bytes(pointer), size: size, from: sourceHandle, at: sourceHandleOffset)
  }

  /// Writes the raw value of the final status, as an Int.
  func copyStatus(buffer: any MTLBuffer, offset: Int) {
    let buffer = own(buffer)
    if buffer.storageMode != .shared { trap("MTLIO: a status is copied to a buffer that the CPU cannot see") }
    if offset < 0 || offset > buffer.length - MemoryLayout<Int>.size {
      trap("MTLIO: a status is copied to offset \(offset) of a buffer of \(buffer.length) bytes")
    }
    locked {
      if isCommitted { trap("MTLIO: a command is encoded after commit") }
      statusCopies.append((IOReference(buffer, kept: retainsReferences), offset))
    }
  }

  func addBarrier() { encode(.barrier) }
  func waitForEvent(_ event: any MTLSharedEvent, value: UInt64) { encode(.wait(event, value)) }
  func signalEvent(_ event: any MTLSharedEvent, value: UInt64) { encode(.signal(event, value)) }

  func addCompletedHandler(_ block: @escaping MTLIOCommandBufferHandler) {
    locked {
      if isCommitted { trap("MTLIO: a completed handler is added after commit") }
      handlers.append(block)
    }
  }

  func pushDebugGroup(_ string: String) { locked { debugGroups += 1 } }

  func popDebugGroup() {
    locked {
      if debugGroups == 0 { trap("MTLIO: a debug group is popped that was not pushed") }
      debugGroups -= 1
    }
  }

  // MARK: Committing

  func enqueue() {
    locked {
      if isEnqueued || isCommitted { trap("MTLIO: a command buffer is enqueued twice, or after commit") }
      isEnqueued = true
      engine.append(self)
    }
  }

  func commit() {
    locked {
      if isCommitted { trap("MTLIO: a command buffer is committed twice") }
      isCommitted = true
      if !isEnqueued { engine.append(self) }
    }
    standin_count(UInt32(STANDIN_LIVE_UNCOMMITTED_IO_COMMAND_BUFFERS), -1)
    engine.advance()
  }

  func waitUntilCompleted() {
    locked {
      if !isCommitted { trap("MTLIO: a command buffer is waited for that was not committed") }
      while finalStatus == .pending { engine.condition.wait() }
    }
  }

  /// What has not started is left out; nothing happens where all has.
  func tryCancel() {
    let goesOn = locked {
      wantsCancel = true
      defer { isWaiting = false }
      return isWaiting
    }
    if goesOn { engine.post([{ self.step() }]) }
  }

  // MARK: Running

  func begin() {
    let fault = standin_meet(UInt32(STANDIN_IO_COMMAND_BUFFER))
    locked {
      endDelay = fault.delay_us
      if fault.code == -1 {
        wasSkipped = true
      } else if fault.code != 0 {
        failure = ioError(fault.code, "The command buffer failed")
      }
    }
    step()
  }

  /// Whether what is left of this buffer is passed over. Under the lock.
  private var stops: Bool { wantsCancel || wasSkipped || failure != nil }

  var isStopping: Bool { locked { stops } }

  /// Runs commands from `next` on, up to one that must wait for something.
  private func step() {
    while true {
      engine.condition.lock()
      if stops && next < commands.count {
        if commands[next...].contains(where: { if case .load = $0 { true } else { false } }) { wasSkipped = true }
        next = commands.count
      }
      guard next < commands.count else {
        engine.condition.unlock()
        return finish()
      }
      let loads = takeLoads()
      if !loads.isEmpty {
        pending = loads.count
        engine.condition.unlock()
        return engine.post(loads.map { load in { self.run(load) } })
      }
      let command = commands[next]
      next += 1
      if case .wait = command { isWaiting = true }
      engine.condition.unlock()
      switch command {
      case .wait(let event, let value):
        return wait(for: event, value)
      case .signal(let event, let value):
        let fault = standin_meet(UInt32(STANDIN_IO_SIGNAL))
        if fault.code == 0, event.signaledValue < value { event.signaledValue = value }
      case .barrier:
        _ = standin_meet(UInt32(STANDIN_IO_BARRIER))
      case .load:
        break
      }
    }
  }

  /// The loads that may run side by side now. Under the lock.
  private func takeLoads() -> [IOLoad] {
    var loads: [IOLoad] = []
    while next < commands.count, case .load(let load) = commands[next] {
      loads.append(load)
      next += 1
    }
    return loads
  }

  private func wait(for event: any MTLSharedEvent, _ value: UInt64) {
    _ = standin_meet(UInt32(STANDIN_IO_WAIT))
    event.notify(engine.listener, atValue: value) { _, _ in
      // A cancel may have come first.
      let goesOn = self.locked {
        defer { self.isWaiting = false }
        return self.isWaiting
      }
      if goesOn { self.engine.post([{ self.step() }]) }
    }
  }

  private func run(_ load: IOLoad) {
    let outcome = isStopping ? IOLoadOutcome.skipped : load.run(engine: engine) { self.isStopping }
    let isLast = locked {
      switch outcome {
      case .done: break
      case .skipped: wasSkipped = true
      case .failed(let error): failure = failure ?? error
      }
      pending -= 1
      return pending == 0
    }
    if isLast { step() }
  }

  private func finish() {
    let delay = endDelay
    if delay == 0 { return complete() }
    engine.handlers.asyncAfter(deadline: .now() + .microseconds(Int(delay))) { self.complete() }
  }

  private func complete() {
    let (handlers, copies, status) = locked {
      finalStatus = failure != nil ? .error : wasSkipped ? .cancelled : .complete
      let result = (self.handlers, statusCopies, finalStatus)
      self.handlers = []
      commands = []
      statusCopies = []
      return result
    }
    for (buffer, offset) in copies {
      let fault = standin_meet(UInt32(STANDIN_IO_STATUS))
      if fault.code == -1 { continue }
      let written = fault.code == 0 ? status.rawValue : Int(fault.code)
      (buffer.object.contents() + offset).storeBytes(of: written, as: Int.self)
    }
    engine.ended(handlers, of: self)
  }
}
