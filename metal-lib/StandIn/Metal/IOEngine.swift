// What one MTLIO queue does behind its object: the order of its command buffers, its worker threads, its slots.
import CStandIn
import Foundation

/// Lives until the queue's object and all its command buffers are gone; the threads end with it.
final class IOEngine: @unchecked Sendable {
  /// Guards everything below that is not constant, and the state of every command buffer of this queue.
  let condition = NSCondition()
  let device: StandInDevice
  let scratchAllocator: (any MTLIOScratchBufferAllocator)?
  let bytesPerSecond: Int
  /// The queue's compressed loads are decoded one after the other.
  let decompression = NSLock()
  /// Handlers and answers of events.
  let handlers: DispatchQueue
  let listener: MTLSharedEventListener
  private let isSerial: Bool
  private let maxThreads: Int

  private enum Entry {
    case buffer(StandInIOCommandBuffer)
    case barrier
  }
  private var order: [Entry] = []
  private var running = 0
  private var freeSlots: Int
  private var jobs: [@Sendable () -> Void] = []
  private var threads = 0
  private var idleThreads = 0
  private var closed = false

  init(device: StandInDevice, descriptor: MTLIOCommandQueueDescriptor) {
    self.device = device
    handlers = DispatchQueue(label: "headrace.stand-in.io.handlers")
    listener = MTLSharedEventListener(dispatchQueue: handlers)
    scratchAllocator = descriptor.scratchBufferAllocator
    isSerial = descriptor.type == .serial
    freeSlots = descriptor.maxCommandBufferCount
    maxThreads = descriptor.maxCommandsInFlight == 0 ? 8 : min(descriptor.maxCommandsInFlight, 16)
    bytesPerSecond = Int(clamping: device.config.bytes_per_second)
  }

  // MARK: Slots

  /// Blocks while `maxCommandBufferCount` command buffers have not completed.
  func takeSlot() {
    condition.lock()
    while freeSlots == 0 { condition.wait() }
    freeSlots -= 1
    condition.unlock()
    standin_count(UInt32(STANDIN_LIVE_UNCOMMITTED_IO_COMMAND_BUFFERS), 1)
  }

  // MARK: Order

  /// Under the lock.
  func append(_ buffer: StandInIOCommandBuffer) { order.append(.buffer(buffer)) }

  func appendBarrier() {
    condition.lock()
    order.append(.barrier)
    condition.unlock()
    advance()
  }

  /// Starts what may start: in order, none past a buffer that is enqueued and not committed.
  func advance() {
    condition.lock()
    var starting: [StandInIOCommandBuffer] = []
    scan: while let first = order.first {
      switch first {
      case .barrier:
        if running > 0 { break scan }
      case .buffer(let buffer):
        if !buffer.isCommitted || (isSerial && running > 0) { break scan }
        running += 1
        starting.append(buffer)
      }
      order.removeFirst()
    }
    condition.unlock()
    for buffer in starting { post([{ buffer.begin() }]) }
  }

  /// Called once for each buffer, with its state final.
  func ended(_ handlers: [MTLIOCommandBufferHandler], of buffer: StandInIOCommandBuffer) {
    condition.lock()
    running -= 1
    freeSlots += 1
    condition.broadcast()
    condition.unlock()
    if !handlers.isEmpty { self.handlers.async { for handler in handlers { handler(buffer) } } }
    advance()
  }

  // MARK: Threads

  func post(_ work: [@Sendable () -> Void]) {
    condition.lock()
    jobs += work
    var wanted = min(jobs.count - idleThreads, maxThreads - threads)
    while wanted > 0 {
      threads += 1
      wanted -= 1
      Thread.detachNewThread { [self] in runJobs() }
    }
    condition.broadcast()
    condition.unlock()
  }

  func close() {
    condition.lock()
    closed = true
    condition.broadcast()
    condition.unlock()
  }

  private func runJobs() {
    condition.lock()
    while true {
      if !jobs.isEmpty {
        let job = jobs.removeFirst()
        condition.unlock()
        job()
        condition.lock()
      } else if closed && running == 0 && order.isEmpty {
        break
      } else {
        idleThreads += 1
        condition.wait()
        idleThreads -= 1
      }
    }
    threads -= 1
    condition.unlock()
  }
}

final class StandInIOCommandQueue: NSObject, MTLIOCommandQueue, @unchecked Sendable {
  private let engine: IOEngine
  private let labelText = Guarded<String?>(nil)
  var label: String? {
    get { labelText.withLock { $0 } }
    set { labelText.withLock { $0 = newValue } }
  }

  init(device: StandInDevice, descriptor: MTLIOCommandQueueDescriptor) {
    engine = IOEngine(device: device, descriptor: descriptor)
    super.init()
    standin_count(UInt32(STANDIN_LIVE_IO_QUEUES), 1)
  }

  deinit {
    engine.close()
    standin_count(UInt32(STANDIN_LIVE_IO_QUEUES), -1)
  }

  func makeCommandBuffer() -> any MTLIOCommandBuffer {
    engine.takeSlot()
    return StandInIOCommandBuffer(engine: engine, retainsReferences: true)
  }

  func makeCommandBufferWithUnretainedReferences() -> any MTLIOCommandBuffer {
    engine.takeSlot()
    return StandInIOCommandBuffer(engine: engine, retainsReferences: false)
  }

  func enqueueBarrier() { engine.appendBarrier() }
}
