#if os(Linux)
import CHeadrace
import CStandIn
import Foundation
import Metal
import XCTest

@testable import HeadraceMetal

/// The whole of a buffer, in loads of `size` bytes, from the file's start.
private func pieces(_ file: StreamFile, _ target: Buffer, of size: Int) -> [StreamLoad] {
  stride(from: 0, to: target.byteLength, by: size).map {
    StreamLoad(file: file, fileOffset: $0, target: target, targetOffset: $0, byteLength: min(size, target.byteLength - $0))
  }
}

/// Stopping, blocking, bounds of memory, and what is left afterwards.
final class StreamsInFlightTests: StreamTestCase {
  func testAStopEndsSoonAndOnce() throws {
    configure { $0.bytes_per_second = 8 << 20 }
    let device = try device { $0.piece_bytes = 1 << 20 }
    let content = sample(16 << 20)
    let raw = try device.streams.open(path: write(content), codec: HR_CODEC_NONE, byteLength: 0)
    let packed = try device.streams.open(path: pack(content, 2), codec: 2, byteLength: content.count)
    let target = try Buffer.makeShared(device: device, byteLength: content.count)
    for file in [raw, packed] {
      for delayUs: UInt32 in [0, 1000, 150_000] {
        let startMs = clockMs()
        let end = wait({ device.streams.start(pieces(file, target, of: 1 << 20), ended: $0) }) { work in
          usleep(delayUs)
          work.stop()
          work.stop()
        }
        XCTAssertEqual(end.failure?.status, Status.cancelled)
        XCTAssertLessThan(clockMs() - startMs, 1900)
      }
    }
    let end = wait { device.streams.start(pieces(raw, target, of: 1 << 20).suffix(1), ended: $0) }
    XCTAssertNil(end.failure)
    XCTAssertEqual(counts().uncommitted_io_command_buffers, 0)
  }

  func testAStopOfOneRunLeavesTheOthers() throws {
    configure { $0.bytes_per_second = 32 << 20 }
    let device = try device { $0.piece_bytes = 1 << 20; $0.io_max_command_buffers = 1 }
    let content = sample(4 << 20)
    let raw = try device.streams.open(path: write(content), codec: HR_CODEC_NONE, byteLength: 0)
    let target = try Buffer.makeShared(device: device, byteLength: content.count)
    let other = try Buffer.makeShared(device: device, byteLength: content.count)
    let outcome = Outcome()
    let stopped = device.streams.start(pieces(raw, other, of: 1 << 20)) { outcome.came($0) }
    let end = wait({ device.streams.start(pieces(raw, target, of: 1 << 20), ended: $0) }) { _ in stopped.stop() }
    XCTAssertNil(end.failure)
    XCTAssertTrue(bytes(target, 0..<content.count) == content)
    XCTAssertEqual(outcome.wait()?.failure?.status, Status.cancelled)
  }

  func testAFailureStopsTheRest() throws {
    let device = try device { $0.piece_bytes = 4096; $0.io_max_command_buffers = 1 }
    let raw = try device.streams.open(path: write(sample(4 << 20)), codec: HR_CODEC_NONE, byteLength: 0)
    let target = try Buffer.makeShared(device: device, byteLength: 4 << 20)
    fault(STANDIN_IO_COMMAND_BUFFER, nth: 3, code: 5)
    let end = wait { device.streams.start(pieces(raw, target, of: 4096), ended: $0) }
    XCTAssertEqual(end.failure?.status, Status.io)
    XCTAssertEqual(end.bytesDone, 8192)
    XCTAssertEqual(standin_calls(UInt32(STANDIN_IO_COMMAND_BUFFER)), 3)
  }

  func testBlockedCommandBuffersNeverHoldUpACaller() throws {
    configure { $0.bytes_per_second = 16 << 20 }
    let device = try device { $0.piece_bytes = 64 << 10; $0.io_max_command_buffers = 1; $0.io_queues = 1; $0.io_serial = 1 }
    let content = sample(1 << 20)
    let raw = try device.streams.open(path: write(content), codec: HR_CODEC_NONE, byteLength: 0)
    let packed = try device.streams.open(path: pack(content, 1), codec: 1, byteLength: content.count)
    let target = try Buffer.makeShared(device: device, byteLength: content.count)
    let outcomes = (0..<8).map { _ in Outcome() }
    let startMs = clockMs()
    for (index, outcome) in outcomes.enumerated() {
      let work = device.streams.start(pieces(index % 2 == 0 ? raw : packed, target, of: 1 << 20)) { outcome.came($0) }
      if index == 5 { work.stop() }
    }
    XCTAssertLessThan(clockMs() - startMs, 100)
    for (index, outcome) in outcomes.enumerated() {
      XCTAssertEqual(outcome.wait()?.failure?.status, index == 5 ? Status.cancelled : nil)
    }
    XCTAssertTrue(bytes(target, 0..<content.count) == content)
  }

  func testEveryDescriptorPropertyTakesEffect() throws {
    let device = try device { $0.io_max_commands = 1; $0.io_max_command_buffers = 3; $0.io_priority = 2; $0.io_queues = 2 }
    let content = sample(8 << 20)
    let packed = try device.streams.open(path: pack(content, 2), codec: 2, byteLength: content.count)
    let target = try Buffer.makeShared(device: device, byteLength: content.count)
    let before = counts().io_queues
    let end = wait { device.streams.start(pieces(packed, target, of: 8 << 20), ended: $0) }
    XCTAssertNil(end.failure)
    // A raw queue is not made before a raw load.
    XCTAssertEqual(counts().io_queues, before + 2)
    XCTAssertTrue(bytes(target, 0..<content.count) == content)
  }

  func testScratchMemoryStaysInItsBound() throws {
    let bound = 2 << 20
    let device = try device { $0.io_scratch_bytes = UInt64(bound); $0.io_queues = 4 }
    let content = try Array(XCTUnwrap(FileHandle(forReadingAtPath: "/dev/urandom")).readData(ofLength: 8 << 20))
    let packed = try device.streams.open(path: pack(content, 2), codec: 2, byteLength: content.count)
    let shared = try Buffer.makeShared(device: device, byteLength: content.count)
    let hidden = try Buffer.makePrivate(device: device, byteLength: content.count)
    usleep(50_000)
    for target in [shared, hidden] {
      let end = wait { device.streams.start(pieces(packed, target, of: 700_001), ended: $0) }
      XCTAssertNil(end.failure)
      XCTAssertTrue(bytes(target, 0..<content.count) == content)
    }
    let scratch = device.streams.scratch
    XCTAssertGreaterThan(scratch.mostInUse, 512 << 10)
    XCTAssertLessThanOrEqual(scratch.mostInUse, bound)
    XCTAssertEqual(scratch.holdings.inUse, 0)
    XCTAssertGreaterThan(scratch.holdings.idle, 0)
    XCTAssertLessThanOrEqual(scratch.holdings.idle, bound)
  }

  func testTheAllocatorWaitsAndMakesItsTwoExceptions() throws {
    let metal = try XCTUnwrap(MTLCreateSystemDefaultDevice())
    let scratch = ScratchAllocator(metal: metal, bound: 1 << 20, patienceMs: 150)
    var large = scratch.makeScratchBuffer(minimumSize: 3 << 20)
    XCTAssertEqual(large?.buffer.length, 3 << 20)
    large = nil
    XCTAssertEqual(scratch.holdings.idle, 0)
    var first = scratch.makeScratchBuffer(minimumSize: 1 << 20)
    let startMs = clockMs()
    let second = scratch.makeScratchBuffer(minimumSize: 1 << 20)
    XCTAssertGreaterThanOrEqual(clockMs() - startMs, 140)
    XCTAssertEqual(scratch.holdings.inUse, 2 << 20)
    let waited = Outcome()
    Thread.detachNewThread {
      let third = scratch.makeScratchBuffer(minimumSize: 1)
      waited.came(RunEnd(bytesDone: third?.buffer.length ?? 0))
    }
    XCTAssertNil(waited.wait(ms: 50))
    first = nil
    withExtendedLifetime(second) {}
    XCTAssertEqual(waited.wait()?.bytesDone, ScratchAllocator.granule)
    XCTAssertNil(first)
  }

  func testReusesScratchMemory() throws {
    let device = try device()
    let content = sample(4 << 20)
    let packed = try device.streams.open(path: pack(content, 2), codec: 2, byteLength: content.count)
    let target = try Buffer.makeShared(device: device, byteLength: content.count)
    _ = wait { device.streams.start(pieces(packed, target, of: 1 << 20), ended: $0) }
    standin_set_faults(nil, 0)
    for _ in 0..<5 { _ = wait { device.streams.start(pieces(packed, target, of: 1 << 20), ended: $0) } }
    XCTAssertLessThan(standin_calls(UInt32(STANDIN_MAKE_BUFFER)), 20)
    XCTAssertGreaterThanOrEqual(standin_calls(UInt32(STANDIN_IO_SCRATCH)), 20)
  }

  func testNothingIsLeftOfACloseInFlight() throws {
    let before = counts()
    let descriptorsBefore = descriptors()
    let content = sample(4 << 20)
    let path = try pack(content, 2)
    for round in 0..<10 {
      configure { $0.bytes_per_second = 64 << 20 }
      let device = try device { $0.piece_bytes = 256 << 10 }
      let file = try device.streams.open(path: path, codec: 2, byteLength: content.count)
      let target = try Buffer.makeShared(device: device, byteLength: content.count)
      let end = wait({ device.streams.start(pieces(file, target, of: 1 << 20), ended: $0) }) { _ in
        usleep(UInt32(round * 2000))
        device.streams.close()
      }
      XCTAssertTrue([Status.closed, nil].contains(end.failure?.status))
      let late = wait { device.streams.start(pieces(file, target, of: 1 << 20), ended: $0) }
      XCTAssertEqual(late.failure?.status, Status.closed)
      try closeDevice()
    }
    eventually("MTLIO objects are left") {
      let now = counts()
      return now.io_queues <= before.io_queues && now.io_handles <= before.io_handles && now.buffers <= before.buffers
    }
    eventually("descriptors are left: \(descriptors()) and \(descriptorsBefore) before") {
      descriptors() <= descriptorsBefore
    }
    XCTAssertEqual(counts().uncommitted_io_command_buffers, 0)
  }

  func testManyThreadsStartAndStop() throws {
    let device = try device { $0.io_queues = 3; $0.io_max_command_buffers = 2 }
    let content = sample(1 << 20)
    let file = try device.streams.open(path: pack(content, 2), codec: 2, byteLength: content.count)
    let raw = try device.streams.open(path: write(content), codec: HR_CODEC_NONE, byteLength: 0)
    let outcomes = (0..<200).map { _ in Outcome() }
    let targets = try (0..<4).map { _ in try Buffer.makeShared(device: device, byteLength: content.count) }
    DispatchQueue.concurrentPerform(iterations: 4) { thread in
      for index in 0..<50 {
        let outcome = outcomes[thread * 50 + index]
        let work = device.streams.start(pieces(index % 2 == 0 ? file : raw, targets[thread], of: 50_000)) { outcome.came($0) }
        if index % 3 == 0 { work.stop() }
      }
    }
    for outcome in outcomes {
      let end = try XCTUnwrap(outcome.wait())
      XCTAssertTrue([nil, Status.cancelled].contains(end.failure?.status))
      if end.failure == nil { XCTAssertEqual(end.bytesDone, content.count) }
    }
  }
}
#endif
