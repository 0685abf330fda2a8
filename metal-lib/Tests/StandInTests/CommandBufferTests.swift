import CStandIn
import Foundation
import XCTest

@testable import Metal

final class CommandBufferTests: StandInTestCase {
  private func fill(_ buffer: any MTLBuffer, _ value: UInt8, on queue: any MTLCommandQueue) throws -> any MTLCommandBuffer {
    let commands = try XCTUnwrap(queue.makeCommandBuffer())
    let encoder = try XCTUnwrap(commands.makeBlitCommandEncoder())
    encoder.fill(buffer: buffer, range: 0..<buffer.length, value: value)
    encoder.endEncoding()
    return commands
  }

  func testCopiesAndFills() throws {
    let device = try makeDevice()
    let queue = try XCTUnwrap(device.makeCommandQueue())
    let source = try XCTUnwrap(device.makeBuffer(bytes: Array(0..<16) as [UInt8], length: 16, options: []))
    let hidden = try XCTUnwrap(device.makeBuffer(length: 16, options: .storageModePrivate))
    let target = try XCTUnwrap(device.makeBuffer(length: 16))
    let commands = try XCTUnwrap(queue.makeCommandBuffer())
    let encoder = try XCTUnwrap(commands.makeBlitCommandEncoder())
    encoder.copy(from: source, sourceOffset: 4, to: hidden, destinationOffset: 0, size: 8)
    encoder.copy(from: hidden, sourceOffset: 0, to: target, destinationOffset: 8, size: 8)
    encoder.fill(buffer: target, range: 0..<4, value: 0xff)
    encoder.endEncoding()
    XCTAssertEqual(target.allBytes, [UInt8](repeating: 0, count: 16), "nothing runs before commit")
    commands.commit()
    commands.waitUntilCompleted()
    XCTAssertEqual(target.allBytes, [255, 255, 255, 255, 0, 0, 0, 0, 4, 5, 6, 7, 8, 9, 10, 11])
  }

  func testStatusHandlersAndTimes() throws {
    let device = try makeDevice()
    let queue = try XCTUnwrap(device.makeCommandQueue())
    let event = try XCTUnwrap(device.makeSharedEvent())
    let commands = try XCTUnwrap(queue.makeCommandBuffer())
    XCTAssertEqual(commands.status, .notEnqueued)
    commands.enqueue()
    XCTAssertEqual(commands.status, .enqueued)
    XCTAssertEqual([commands.kernelStartTime, commands.kernelEndTime, commands.gpuStartTime, commands.gpuEndTime], [0, 0, 0, 0])
    let seen = Guarded([String]())
    let test = pthread_self()
    commands.addScheduledHandler { commands in
      XCTAssertGreaterThanOrEqual(commands.status.rawValue, MTLCommandBufferStatus.scheduled.rawValue)
      XCTAssertEqual(pthread_equal(test, pthread_self()), 0)
      seen.withLock { $0.append("scheduled") }
    }
    for number in 1...2 {
      commands.addCompletedHandler { commands in
        XCTAssertEqual(commands.status, .completed)
        XCTAssertEqual(pthread_equal(test, pthread_self()), 0)
        seen.withLock { $0.append("completed \(number)") }
      }
    }
    commands.encodeWaitForEvent(event, value: 1)
    let before = hostSeconds()
    commands.commit()
    commands.waitUntilScheduled()
    XCTAssertEqual(commands.gpuEndTime, 0)
    event.signaledValue = 1
    commands.waitUntilCompleted()
    let times = [before, commands.kernelStartTime, commands.kernelEndTime, commands.gpuStartTime, commands.gpuEndTime, hostSeconds()]
    XCTAssertEqual(times, times.sorted())
    XCTAssertGreaterThan(commands.gpuEndTime, commands.gpuStartTime)
    XCTAssertTrue(within(2) { seen.withLock { $0 } == ["scheduled", "completed 1", "completed 2"] })
    XCTAssertNil(commands.error)
  }

  func testOrderIsThatOfCommitsAndOfEnqueues() throws {
    let device = try makeDevice()
    let queue = try XCTUnwrap(device.makeCommandQueue())
    let bytes = try XCTUnwrap(device.makeBuffer(length: 4))
    let buffers = try (1...30).map { try fill(bytes, UInt8($0), on: queue) }
    for commands in buffers { commands.commit() }
    buffers[29].waitUntilCompleted()
    XCTAssertEqual(bytes.allBytes, [30, 30, 30, 30])
    XCTAssertEqual(buffers.map { $0.gpuStartTime }, buffers.map { $0.gpuStartTime }.sorted())

    let (first, second) = (try fill(bytes, 1, on: queue), try fill(bytes, 2, on: queue))
    first.enqueue()
    second.commit()
    usleep(10_000)
    XCTAssertEqual(second.status, .committed, "the place before it is taken")
    first.commit()
    second.waitUntilCompleted()
    XCTAssertEqual(bytes.allBytes, [2, 2, 2, 2])
  }

  func testAQueueThatIsFullWaits() throws {
    let device = try makeDevice()
    let queue = try XCTUnwrap(device.makeCommandQueue(maxCommandBufferCount: 2))
    let event = try XCTUnwrap(device.makeSharedEvent())
    let first = try XCTUnwrap(queue.makeCommandBuffer())
    first.encodeWaitForEvent(event, value: 1)
    first.commit()
    var dropped = queue.makeCommandBuffer()
    XCTAssertNotNil(dropped)
    let made = Guarded(false)
    let thread = TestThread {
      let third = queue.makeCommandBuffer()
      made.withLock { $0 = third != nil }
    }
    usleep(30_000)
    XCTAssertFalse(made.withLock { $0 })
    dropped = nil
    XCTAssertTrue(within(2) { made.withLock { $0 } }, "a buffer that is dropped gives its place back")
    thread.join()
    let other = TestThread { made.withLock { $0 = queue.makeCommandBuffer() == nil } }
    other.join()
    event.signaledValue = 1
    first.waitUntilCompleted()
    XCTAssertEqual(first.status, .completed)
  }

  func testADefaultQueueTakes64() throws {
    let device = try makeDevice()
    let queue = try XCTUnwrap(device.makeCommandQueue())
    var buffers = (0..<64).map { _ in queue.makeCommandBuffer() }
    let made = Guarded(false)
    let thread = TestThread {
      _ = queue.makeCommandBuffer()
      made.withLock { $0 = true }
    }
    usleep(30_000)
    XCTAssertFalse(made.withLock { $0 })
    buffers.removeLast()
    thread.join()
    XCTAssertTrue(made.withLock { $0 })
  }

  func testWhatIsUsedLivesUntilCompletion() throws {
    let device = try makeDevice()
    let queue = try XCTUnwrap(device.makeCommandQueue())
    let event = try XCTUnwrap(device.makeSharedEvent())
    var commands: (any MTLCommandBuffer)? = queue.makeCommandBuffer()
    commands?.encodeWaitForEvent(event, value: 1)
    do {
      let bytes = try XCTUnwrap(device.makeBuffer(length: 4))
      let encoder = try XCTUnwrap(commands?.makeBlitCommandEncoder())
      encoder.fill(buffer: bytes, range: 0..<4, value: 1)
      encoder.endEncoding()
    }
    commands?.commit()
    commands = nil
    XCTAssertEqual(liveCounts().buffers, 1)
    XCTAssertEqual(liveCounts().command_buffers, 1)
    event.signaledValue = 1
    XCTAssertTrue(within(2) { liveCounts().buffers == 0 && liveCounts().command_buffers == 0 })
  }

  func testUnretainedReferencesDoNotHold() throws {
    let device = try makeDevice()
    let queue = try XCTUnwrap(device.makeCommandQueue())
    var bytes = device.makeBuffer(length: 4)
    let descriptor = MTLCommandBufferDescriptor()
    descriptor.retainedReferences = false
    let commands = try XCTUnwrap(queue.makeCommandBuffer(descriptor: descriptor))
    XCTAssertFalse(commands.retainedReferences)
    let encoder = try XCTUnwrap(commands.makeBlitCommandEncoder())
    encoder.fill(buffer: try XCTUnwrap(bytes), range: 0..<4, value: 1)
    encoder.endEncoding()
    commands.commit()
    commands.waitUntilCompleted()
    XCTAssertEqual(bytes?.allBytes, [1, 1, 1, 1])
    bytes = nil
    XCTAssertEqual(liveCounts().buffers, 0)
  }

  // MARK: Failures

  func testAFaultEndsOneCommandBuffer() throws {
    let device = try makeDevice()
    let queue = try XCTUnwrap(device.makeCommandQueue())
    let event = try XCTUnwrap(device.makeSharedEvent())
    let bytes = try XCTUnwrap(device.makeBuffer(length: 8))
    fault(STANDIN_COMMAND_BUFFER, nth: 2, code: 2)
    let codes: [Int?] = try (1...3).map { round in
      let commands = try XCTUnwrap(queue.makeCommandBuffer())
      let encoder = try XCTUnwrap(commands.makeBlitCommandEncoder())
      encoder.fill(buffer: bytes, range: 0..<4, value: UInt8(round))
      encoder.fill(buffer: bytes, range: 4..<8, value: UInt8(round))
      encoder.endEncoding()
      commands.encodeSignalEvent(event, value: UInt64(round))
      commands.commit()
      commands.waitUntilCompleted()
      if round == 2 {
        XCTAssertEqual(commands.status, .error)
        XCTAssertEqual((commands.error as NSError?)?.domain, MTLCommandBufferErrorDomain)
        XCTAssertEqual(bytes.allBytes, [2, 2, 2, 2, 1, 1, 1, 1], "half of it was done")
        XCTAssertEqual(event.signaledValue, 1)
      }
      return (commands.error as NSError?)?.code
    }
    XCTAssertEqual(codes, [nil, Int(MTLCommandBufferError.timeout.rawValue), nil])
  }

  func testARemovedDeviceStaysAway() throws {
    let device = try makeDevice()
    let (queue, other) = (try XCTUnwrap(device.makeCommandQueue()), try XCTUnwrap(device.makeCommandQueue()))
    let event = try XCTUnwrap(device.makeSharedEvent())
    let waiting = try XCTUnwrap(other.makeCommandBuffer())
    waiting.encodeWaitForEvent(event, value: 1)
    waiting.commit()
    fault(STANDIN_COMMAND_BUFFER, code: 11)
    let first = try XCTUnwrap(queue.makeCommandBuffer())
    first.commit()
    let second = try XCTUnwrap(queue.makeCommandBuffer())
    second.commit()
    for commands in [first, second, waiting] {
      commands.waitUntilCompleted()
      XCTAssertEqual((commands.error as NSError?)?.code, 11)
    }
    XCTAssertNil(device.makeBuffer(length: 4))
  }

  func testADelayIsKept() throws {
    let device = try makeDevice()
    let queue = try XCTUnwrap(device.makeCommandQueue())
    fault(STANDIN_COMMAND_BUFFER, delayUs: 50_000)
    let commands = try XCTUnwrap(queue.makeCommandBuffer())
    commands.commit()
    commands.waitUntilCompleted()
    XCTAssertEqual(commands.status, .completed)
    XCTAssertGreaterThan(commands.gpuEndTime - commands.gpuStartTime, 0.049)
  }

  func testShuffledCompletionsKeepEachQueuesOrder() throws {
    configure { $0.shuffle_completions = 1 }
    let device = try makeDevice()
    let queues = try (0..<3).map { _ in try XCTUnwrap(device.makeCommandQueue()) }
    let ends = Guarded([(queue: Int, number: Int)]())
    for number in 0..<20 {
      for (index, queue) in queues.enumerated() {
        let commands = try XCTUnwrap(queue.makeCommandBuffer())
        commands.addCompletedHandler { _ in ends.withLock { $0.append((index, number)) } }
        commands.commit()
      }
    }
    XCTAssertTrue(within(10) { ends.withLock { $0.count } == 60 })
    let order = ends.withLock { $0 }
    for index in 0..<3 {
      XCTAssertEqual(order.filter { $0.queue == index }.map { $0.number }, Array(0..<20))
    }
    let commitOrder = (0..<60).map { $0 % 3 }
    XCTAssertNotEqual(order.map { $0.queue }, commitOrder, "queues do not end in turn")
  }

  func testManyThreadsUseManyQueues() throws {
    let device = try makeDevice()
    let done = Guarded(0)
    let threads = try (0..<4).map { _ in
      let queue = try XCTUnwrap(device.makeCommandQueue(maxCommandBufferCount: 3))
      let bytes = try XCTUnwrap(device.makeBuffer(length: 64))
      return TestThread {
        for number in 1...50 {
          guard let commands = queue.makeCommandBuffer(), let encoder = commands.makeBlitCommandEncoder() else { return }
          encoder.fill(buffer: bytes, range: 0..<64, value: UInt8(number))
          encoder.endEncoding()
          commands.addCompletedHandler { _ in done.withLock { $0 += 1 } }
          commands.commit()
        }
      }
    }
    threads.forEach { $0.join() }
    XCTAssertTrue(within(20) { done.withLock { $0 } == 200 })
  }

  func testQueueFault() throws {
    let device = try makeDevice()
    fault(STANDIN_MAKE_QUEUE, code: 1)
    XCTAssertNil(device.makeCommandQueue())
    XCTAssertNotNil(device.makeCommandQueue())
  }
}

/// A thread that can be waited for. What it runs may use Metal's objects, which tests know to be safe there.
final class TestThread: @unchecked Sendable {
  private let ended = Guarded(false)

  init(_ body: @escaping () -> Void) {
    let ended = self.ended
    let work = UncheckedBox(body)
    Thread.detachNewThread {
      work.value()
      ended.withLock { $0 = true }
    }
  }

  func join() {
    _ = ended.wait { $0 ? true : nil }
  }
}

/// Carries a value to another thread.
struct UncheckedBox<Value>: @unchecked Sendable {
  let value: Value

  init(_ value: Value) {
    self.value = value
  }
}
