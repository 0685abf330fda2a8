import CStandIn
import Foundation
import XCTest

@testable import Metal

final class IOTests: IOTestCase {
  func testLoadsRawBytesIntoBuffersAndPointers() throws {
    let content = sample(300_000)
    let handle = try device.makeIOFileHandle(url: file(content))
    let target = try buffer(300_000)
    let pointer = UnsafeMutableRawPointer.allocate(byteCount: 1000, alignment: 1)
    defer { pointer.deallocate() }
    let commandBuffer = try queue().makeCommandBuffer()
    XCTAssertEqual(commandBuffer.status, .pending)
    commandBuffer.load(target, offset: 5, size: 200_001, sourceHandle: handle, sourceHandleOffset: 3)
    commandBuffer.loadBytes(pointer, size: 1000, sourceHandle: handle, sourceHandleOffset: 299_000)
    commandBuffer.copyStatus(buffer: target, offset: 250_000)
    commandBuffer.commit()
    commandBuffer.waitUntilCompleted()
    XCTAssertEqual(commandBuffer.status, .complete)
    XCTAssertNil(commandBuffer.error)
    XCTAssertEqual(bytes(target, 0..<5), [0, 0, 0, 0, 0])
    XCTAssertEqual(bytes(target, 5..<200_006), Array(content[3..<200_004]))
    XCTAssertEqual(Array(UnsafeRawBufferPointer(start: pointer, count: 1000)), Array(content[299_000...]))
    XCTAssertEqual((target.contents() + 250_000).load(as: Int.self), MTLIOStatus.complete.rawValue)
  }

  func testHandlersComeOnAnotherThreadOnceWithTheFinalStatus() throws {
    let handle = try device.makeIOFileHandle(url: file(sample(100)))
    let target = try buffer(100)
    let commandBuffer = try queue().makeCommandBuffer()
    commandBuffer.load(target, offset: 0, size: 100, sourceHandle: handle, sourceHandleOffset: 0)
    let called = expectation(description: "handler")
    let caller = pthread_self()
    commandBuffer.addCompletedHandler { ended in
      XCTAssertEqual(ended.status, .complete)
      XCTAssertEqual(pthread_equal(caller, pthread_self()), 0)
      called.fulfill()
    }
    commandBuffer.commit()
    wait(for: [called], timeout: 10)
  }

  func testMakingBlocksUntilOneCompletesAndAnUncommittedOneHoldsItsSlot() throws {
    let queue = try self.queue { $0.maxCommandBufferCount = 2 }
    let before = counts().uncommitted_io_command_buffers
    let first = queue.makeCommandBuffer()
    let second = queue.makeCommandBuffer()
    XCTAssertEqual(counts().uncommitted_io_command_buffers, before + 2)
    let made = DispatchSemaphore(value: 0)
    nonisolated(unsafe) let shared = queue
    Thread.detachNewThread {
      shared.makeCommandBuffer().commit()
      made.signal()
    }
    XCTAssertEqual(made.wait(timeout: .now() + 0.2), .timedOut)
    first.commit()
    XCTAssertEqual(made.wait(timeout: .now() + 10), .success)
    second.commit()
    second.waitUntilCompleted()
    XCTAssertEqual(counts().uncommitted_io_command_buffers, before)
  }

  func testSerialQueuesRunOneAfterTheOtherAndConcurrentOnesDoNot() throws {
    for type in [MTLIOCommandQueueType.serial, .concurrent] {
      let event = try XCTUnwrap(device.makeSharedEvent())
      let queue = try self.queue { $0.type = type }
      let first = queue.makeCommandBuffer()
      first.waitForEvent(event, value: 1)
      first.commit()
      let second = queue.makeCommandBuffer()
      let ended = DispatchSemaphore(value: 0)
      second.addCompletedHandler { _ in ended.signal() }
      second.commit()
      let early = ended.wait(timeout: .now() + (type == .serial ? 0.2 : 10))
      XCTAssertEqual(early, type == .serial ? .timedOut : .success)
      event.signaledValue = 1
      first.waitUntilCompleted()
      second.waitUntilCompleted()
    }
  }

  func testABarrierOfTheQueueHoldsBackWhatIsCommittedLater() throws {
    let event = try XCTUnwrap(device.makeSharedEvent())
    let queue = try self.queue()
    let first = queue.makeCommandBuffer()
    first.waitForEvent(event, value: 1)
    first.commit()
    queue.enqueueBarrier()
    let second = queue.makeCommandBuffer()
    let ended = DispatchSemaphore(value: 0)
    second.addCompletedHandler { _ in ended.signal() }
    second.commit()
    XCTAssertEqual(ended.wait(timeout: .now() + 0.2), .timedOut)
    event.signaledValue = 1
    XCTAssertEqual(ended.wait(timeout: .now() + 10), .success)
  }

  func testAnEnqueuedBufferKeepsItsPlace() throws {
    let queue = try self.queue { $0.type = .serial }
    let first = queue.makeCommandBuffer()
    first.enqueue()
    let second = queue.makeCommandBuffer()
    let ended = DispatchSemaphore(value: 0)
    second.addCompletedHandler { _ in ended.signal() }
    second.commit()
    XCTAssertEqual(ended.wait(timeout: .now() + 0.2), .timedOut)
    first.commit()
    XCTAssertEqual(ended.wait(timeout: .now() + 10), .success)
  }

  func testSignalsFollowTheLoadsBeforeThem() throws {
    configure { $0.bytes_per_second = 20 << 20 }
    let content = sample(2 << 20)
    let handle = try device.makeIOFileHandle(url: file(content))
    let target = try buffer(content.count)
    let event = try XCTUnwrap(device.makeSharedEvent())
    let commandBuffer = try queue().makeCommandBuffer()
    commandBuffer.load(target, offset: 0, size: content.count, sourceHandle: handle, sourceHandleOffset: 0)
    commandBuffer.addBarrier()
    commandBuffer.signalEvent(event, value: 7)
    commandBuffer.commit()
    XCTAssertEqual(event.signaledValue, 0)
    commandBuffer.waitUntilCompleted()
    XCTAssertEqual(event.signaledValue, 7)
    XCTAssertEqual(bytes(target, 0..<content.count), content)
  }

  func testCancelsBeforeAndWhileRunning() throws {
    configure { $0.bytes_per_second = 8 << 20 }
    let handle = try device.makeIOFileHandle(url: file(sample(8 << 20)))
    let target = try buffer(8 << 20)
    let queue = try self.queue { $0.maxCommandsInFlight = 1 }
    let early = queue.makeCommandBuffer()
    early.load(target, offset: 0, size: 100, sourceHandle: handle, sourceHandleOffset: 0)
    early.tryCancel()
    early.commit()
    early.waitUntilCompleted()
    XCTAssertEqual(early.status, .cancelled)
    let running = queue.makeCommandBuffer()
    for part in 0..<8 {
      running.load(target, offset: part << 20, size: 1 << 20, sourceHandle: handle, sourceHandleOffset: part << 20)
    }
    let start = hostSeconds()
    running.commit()
    usleep(50_000)
    running.tryCancel()
    running.waitUntilCompleted()
    XCTAssertEqual(running.status, .cancelled)
    XCTAssertLessThan(hostSeconds() - start, 0.7)
    let waiting = queue.makeCommandBuffer()
    waiting.waitForEvent(try XCTUnwrap(device.makeSharedEvent()), value: 1)
    waiting.load(target, offset: 0, size: 100, sourceHandle: handle, sourceHandleOffset: 0)
    waiting.commit()
    waiting.tryCancel()
    waiting.waitUntilCompleted()
    XCTAssertEqual(waiting.status, .cancelled)
    let whole = queue.makeCommandBuffer()
    whole.load(target, offset: 0, size: 100, sourceHandle: handle, sourceHandleOffset: 0)
    whole.commit()
    whole.waitUntilCompleted()
    whole.tryCancel()
    XCTAssertEqual(whole.status, .complete)
  }

  func testLoadsPastTheEndOfTheFileAreErrors() throws {
    let handle = try device.makeIOFileHandle(url: file(sample(100)))
    let target = try buffer(200)
    let commandBuffer = try queue().makeCommandBuffer()
    commandBuffer.load(target, offset: 0, size: 101, sourceHandle: handle, sourceHandleOffset: 0)
    commandBuffer.copyStatus(buffer: target, offset: 192)
    commandBuffer.commit()
    commandBuffer.waitUntilCompleted()
    XCTAssertEqual(commandBuffer.status, .error)
    XCTAssertEqual((commandBuffer.error as NSError?)?.domain, "MTLIOError")
    XCTAssertEqual((target.contents() + 192).load(as: Int.self), MTLIOStatus.error.rawValue)
  }

  func testPrivateTargetsGoThroughScratchMemory() throws {
    let content = sample(70_000)
    let handle = try device.makeIOFileHandle(url: file(content))
    let target = try XCTUnwrap(device.makeBuffer(length: 70_000, options: .storageModePrivate))
    let allocator = CountingAllocator(device)
    let commandBuffer = try queue { $0.scratchBufferAllocator = allocator }.makeCommandBuffer()
    commandBuffer.load(target, offset: 1000, size: 60_000, sourceHandle: handle, sourceHandleOffset: 10_000)
    commandBuffer.commit()
    commandBuffer.waitUntilCompleted()
    XCTAssertEqual(commandBuffer.status, .complete)
    XCTAssertEqual(allocator.sizes.withLock { $0 }, [60_000])
    let loaded = UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: UInt(target.gpuAddress))! + 1000, count: 60_000)
    XCTAssertEqual(Array(loaded), Array(content[10_000..<70_000]))
  }

  func testWithoutScratchMemoryTheBufferIsCancelled() throws {
    let handle = try device.makeIOFileHandle(url: file(sample(100)))
    let target = try XCTUnwrap(device.makeBuffer(length: 100, options: .storageModePrivate))
    let allocator = CountingAllocator(device)
    let queue = try self.queue { $0.scratchBufferAllocator = allocator }
    fault(STANDIN_IO_SCRATCH, code: 12)
    let commandBuffer = queue.makeCommandBuffer()
    commandBuffer.load(target, offset: 0, size: 100, sourceHandle: handle, sourceHandleOffset: 0)
    commandBuffer.commit()
    commandBuffer.waitUntilCompleted()
    XCTAssertEqual(commandBuffer.status, .cancelled)
  }

  func testFaultsEndCommandBuffersAndHandles() throws {
    let url = try file(sample(100))
    let handle = try device.makeIOFileHandle(url: url)
    let target = try buffer(100)
    let queue = try self.queue()
    for (code, status) in [(Int32(5), MTLIOStatus.error), (-1, .cancelled), (0, .complete)] {
      fault(STANDIN_IO_COMMAND_BUFFER, code: code, delayUs: 50_000)
      let start = hostSeconds()
      let commandBuffer = queue.makeCommandBuffer()
      commandBuffer.load(target, offset: 0, size: 100, sourceHandle: handle, sourceHandleOffset: 0)
      commandBuffer.commit()
      commandBuffer.waitUntilCompleted()
      XCTAssertEqual(commandBuffer.status, status)
      XCTAssertEqual((commandBuffer.error as NSError?)?.code, status == .error ? 5 : nil)
      XCTAssertGreaterThan(hostSeconds() - start, 0.045)
    }
    fault(STANDIN_IO_HANDLE, code: 13)
    XCTAssertThrowsError(try device.makeIOFileHandle(url: url)) { XCTAssertEqual(($0 as NSError).code, 13) }
    XCTAssertNoThrow(try device.makeIOFileHandle(url: url))
  }

  func testHandlesOfWhatIsNoFileThrowErrno() throws {
    let missing = folder.appendingPathComponent("missing")
    XCTAssertThrowsError(try device.makeIOFileHandle(url: missing)) {
      XCTAssertEqual(($0 as NSError).domain, "MTLIOError")
      XCTAssertEqual(($0 as NSError).code, Int(ENOENT))
    }
    XCTAssertThrowsError(try device.makeIOFileHandle(url: folder))
  }

  func testCopyOfADescriptorForgetsTheCommandsInFlight() throws {
    let descriptor = MTLIOCommandQueueDescriptor()
    descriptor.maxCommandsInFlight = 2
    descriptor.maxCommandBufferCount = 3
    descriptor.type = .serial
    let copy = try XCTUnwrap(descriptor.copy() as? MTLIOCommandQueueDescriptor)
    XCTAssertEqual(copy.maxCommandBufferCount, 3)
    XCTAssertEqual(copy.type, .serial)
    XCTAssertEqual(copy.maxCommandsInFlight, MTLIOCommandQueueDescriptor().maxCommandsInFlight)
  }

  func testNothingIsLeft() throws {
    let before = counts()
    try autoreleasepoolFree {
      let handle = try device.makeIOFileHandle(url: file(sample(1000)))
      let target = try buffer(1000)
      let queue = try self.queue()
      for _ in 0..<200 {
        let commandBuffer = queue.makeCommandBuffer()
        commandBuffer.load(target, offset: 0, size: 1000, sourceHandle: handle, sourceHandleOffset: 0)
        commandBuffer.commit()
      }
    }
    let deadline = hostSeconds() + 10
    while counts().io_queues + counts().io_handles + counts().buffers
      > before.io_queues + before.io_handles + before.buffers, hostSeconds() < deadline
    { usleep(2000) }
    XCTAssertEqual(counts().io_queues, before.io_queues)
    XCTAssertEqual(counts().io_handles, before.io_handles)
    XCTAssertEqual(counts().buffers, before.buffers)
    XCTAssertEqual(counts().uncommitted_io_command_buffers, before.uncommitted_io_command_buffers)
  }

  private func autoreleasepoolFree(_ body: () throws -> Void) rethrows { try body() }
}
