import CStandIn
import Dispatch
import Foundation
import XCTest

@testable import Metal

final class EventTests: StandInTestCase {
  func testNotifiesOnTheListenersQueue() throws {
    let event = try XCTUnwrap(makeDevice().makeSharedEvent())
    let key = UncheckedBox(DispatchSpecificKey<Int>())
    let queue = DispatchQueue(label: "test")
    queue.setSpecific(key: key.value, value: 42)
    let listener = MTLSharedEventListener(dispatchQueue: queue)
    let seen = Guarded([UInt64]())
    event.notify(listener, atValue: 3) { _, value in
      XCTAssertEqual(DispatchQueue.getSpecific(key: key.value), 42)
      seen.withLock { $0.append(value) }
    }
    event.signaledValue = 2
    queue.sync {}
    XCTAssertEqual(seen.withLock { $0 }, [])
    event.signaledValue = 5
    XCTAssertTrue(within(2) { seen.withLock { $0 } == [5] })
    event.signaledValue = 6
    queue.sync {}
    XCTAssertEqual(seen.withLock { $0 }, [5], "once only")
  }

  func testAValueThatWasReachedNotifiesAtOnce() throws {
    let event = try XCTUnwrap(makeDevice().makeSharedEvent())
    event.signaledValue = 9
    let listener = MTLSharedEventListener()
    let seen = Guarded([UInt64]())
    event.notify(listener, atValue: 9) { _, value in seen.withLock { $0.append(value) } }
    XCTAssertTrue(within(2) { seen.withLock { $0 } == [9] })
  }

  func testAListenerThatWentIsNotCalled() throws {
    let event = try XCTUnwrap(makeDevice().makeSharedEvent())
    let queue = DispatchQueue(label: "test")
    let calls = Guarded(0)
    do {
      let listener = MTLSharedEventListener(dispatchQueue: queue)
      event.notify(listener, atValue: 1) { _, _ in calls.withLock { $0 += 1 } }
    }
    event.signaledValue = 1
    queue.sync {}
    XCTAssertEqual(calls.withLock { $0 }, 0)
  }

  func testThreadsSignalAndQueuesWait() throws {
    let device = try makeDevice()
    let event = try XCTUnwrap(device.makeSharedEvent())
    let queue = try XCTUnwrap(device.makeCommandQueue())
    let waiting = try XCTUnwrap(queue.makeCommandBuffer())
    waiting.encodeWaitForEvent(event, value: 1)
    waiting.encodeSignalEvent(event, value: 2)
    waiting.commit()
    usleep(20_000)
    XCTAssertNotEqual(waiting.status, .completed)
    XCTAssertEqual(event.signaledValue, 0)
    let thread = TestThread { event.signaledValue = 1 }
    waiting.waitUntilCompleted()
    thread.join()
    XCTAssertEqual(waiting.status, .completed)
    XCTAssertEqual(event.signaledValue, 2)
  }

  func testQueuesWaitForOneAnother() throws {
    let device = try makeDevice()
    let event = try XCTUnwrap(device.makeEvent())
    let bytes = try XCTUnwrap(device.makeBuffer(length: 4))
    let (first, second) = (try XCTUnwrap(device.makeCommandQueue()), try XCTUnwrap(device.makeCommandQueue()))
    let late = try XCTUnwrap(second.makeCommandBuffer())
    late.encodeWaitForEvent(event, value: 1)
    let encoder = try XCTUnwrap(late.makeBlitCommandEncoder())
    encoder.fill(buffer: bytes, range: 0..<4, value: 2)
    encoder.endEncoding()
    late.commit()
    let early = try XCTUnwrap(first.makeCommandBuffer())
    let filler = try XCTUnwrap(early.makeBlitCommandEncoder())
    filler.fill(buffer: bytes, range: 0..<4, value: 1)
    filler.endEncoding()
    early.encodeSignalEvent(event, value: 1)
    early.commit()
    late.waitUntilCompleted()
    XCTAssertEqual(bytes.allBytes, [2, 2, 2, 2])
    // The signal goes out before the command buffer that it ends is told to be completed.
    early.waitUntilCompleted()
    XCTAssertEqual(early.status, .completed)
  }

  func testFaultGivesNil() throws {
    let device = try makeDevice()
    fault(STANDIN_MAKE_EVENT, times: 2, code: 1)
    XCTAssertNil(device.makeSharedEvent())
    XCTAssertNil(device.makeEvent())
    XCTAssertNotNil(device.makeSharedEvent())
  }
}
