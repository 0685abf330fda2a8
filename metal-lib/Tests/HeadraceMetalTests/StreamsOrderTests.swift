#if os(Linux)
import CHeadrace
import CStandIn
import Foundation
import Metal
import XCTest

@testable import HeadraceMetal

/// Loads that follow one another, and the status that MTLIO writes beside.
final class StreamsOrderTests: StreamTestCase {
  private func calls(_ call: Int) -> Int { Int(standin_calls(UInt32(call))) }

  private func load(_ file: StreamFile, _ target: Buffer, _ count: Int) -> StreamLoad {
    StreamLoad(file: file, fileOffset: 0, target: target, targetOffset: 0, byteLength: count)
  }

  /// Two files of `count` bytes that differ everywhere.
  private func files(_ device: Device, _ count: Int, codec: Int? = nil) throws -> (StreamFile, StreamFile, [UInt8]) {
    let first = sample(count)
    let second = first.map { ~$0 }
    let open = { [self] (content: [UInt8], name: String) in
      guard let codec else { return try device.streams.open(path: write(content, name), codec: HR_CODEC_NONE, byteLength: 0) }
      return try device.streams.open(path: pack(content, codec, name), codec: UInt32(codec), byteLength: count)
    }
    return (try open(first, "first"), try open(second, "second"), second)
  }

  func testSmallPhasesAreOneCommandBufferWithBarriers() throws {
    configure { $0.bytes_per_second = 16 << 20 }
    let device = try device()
    let (first, second, content) = try files(device, 1 << 20)
    let target = try Buffer.makeShared(device: device, byteLength: 1 << 20)
    // Without the order the short load would be over first, and be written over.
    let end = wait { device.streams.start([[load(first, target, 1 << 20)], [], [load(second, target, 4096)]], ended: $0) }
    XCTAssertNil(end.failure)
    XCTAssertEqual(end.bytesDone, (1 << 20) + 4096)
    XCTAssertTrue(bytes(target, 0..<4096) == Array(content[..<4096]))
    XCTAssertEqual(bytes(target, 4096..<4097), [~content[4096]])
    XCTAssertEqual([calls(STANDIN_IO_COMMAND_BUFFER), calls(STANDIN_IO_BARRIER), calls(STANDIN_IO_WAIT)], [1, 1, 0])
  }

  func testPhasesOnSeveralQueuesWaitForEvents() throws {
    configure { $0.bytes_per_second = 32 << 20 }
    let device = try device { $0.io_queues = 4 }
    let (first, second, content) = try files(device, 4 << 20, codec: 2)
    let target = try Buffer.makeShared(device: device, byteLength: 4 << 20)
    let phases = [[load(first, target, 4 << 20)], [load(second, target, 4 << 20)], [load(first, target, 1000)]]
    let end = wait { device.streams.start(phases, ended: $0) }
    XCTAssertNil(end.failure)
    XCTAssertEqual(bytes(target, 0..<1000), content[..<1000].map { ~$0 })
    XCTAssertTrue(bytes(target, 1000..<4 << 20) == Array(content[1000...]))
    // Four batches wait for four, one for four; nobody waits for the last.
    XCTAssertEqual(calls(STANDIN_IO_WAIT), 20)
    XCTAssertEqual(calls(STANDIN_IO_SIGNAL), 8)
  }

  func testPhasesOfTwoKindsAndLongOnesFollowOneAnotherToo() throws {
    configure { $0.bytes_per_second = 64 << 20 }
    let device = try device { $0.piece_bytes = 64 << 10 }
    let (raw, _, other) = try files(device, 2 << 20)
    let packed = try device.streams.open(path: pack(other, 2), codec: 2, byteLength: other.count)
    let target = try Buffer.makeShared(device: device, byteLength: 2 << 20)
    for phases in [[[load(raw, target, 256 << 10)], [load(packed, target, 4096)]], [[load(raw, target, 2 << 20)], [load(packed, target, 64)], [load(packed, target, 1 << 20)]]] {
      let end = wait { device.streams.start(phases, ended: $0) }
      XCTAssertNil(end.failure)
      XCTAssertEqual(end.bytesDone, phases.joined().reduce(0) { $0 + $1.byteLength })
      let last = phases.last![0].byteLength
      XCTAssertTrue(bytes(target, 0..<last) == Array(other[..<last]))
    }
    XCTAssertEqual(calls(STANDIN_IO_WAIT), 0)
  }

  func testNothingFollowsAPhaseThatFailed() throws {
    let device = try device { $0.piece_bytes = 64 << 10 }
    for (size, codec) in [(256 << 10, nil), (256 << 10, 2), (2 << 20, nil)] {
      let (first, second, _) = try files(device, size, codec: codec)
      let target = try Buffer.makeShared(device: device, byteLength: size)
      var hasFailedFirst = false
      // Those that wait begin as well, so that the failure may meet one of the second phase.
      for _ in 0..<20 where !hasFailedFirst {
        let untouched = try Buffer.makeShared(device: device, byteLength: size)
        var phases = [[load(first, target, size)], [load(second, untouched, size)]]
        for phase in phases.indices { phases[phase][0].request = phase }
        // Long enough for all to be on their way when it is told.
        fault(STANDIN_IO_COMMAND_BUFFER, nth: 2, code: 5, delayUs: 150_000)
        let end = wait { device.streams.start(phases, ended: $0) }
        XCTAssertEqual(end.failure?.status, codec == nil ? Status.io : Status.corrupt)
        hasFailedFirst = end.failure?.message.hasPrefix("request 0:") ?? false
        if hasFailedFirst { XCTAssertTrue(bytes(untouched, 0..<size).allSatisfy { $0 == 0 }, "size \(size)") }
      }
      XCTAssertTrue(hasFailedFirst)
    }
    XCTAssertEqual(counts().uncommitted_io_command_buffers, 0)
  }

  func testASignalThatMTLIODoesNotMakeComesFromTheCPU() throws {
    let device = try device { $0.piece_bytes = 64 << 10 }
    let (first, second, content) = try files(device, 128 << 10)
    let target = try Buffer.makeShared(device: device, byteLength: 128 << 10)
    fault(STANDIN_IO_SIGNAL, times: 100, code: 1)
    let end = wait { device.streams.start([[load(first, target, 128 << 10)], [load(second, target, 128 << 10)]], ended: $0) }
    XCTAssertNil(end.failure)
    XCTAssertTrue(bytes(target, 0..<128 << 10) == content)
  }

  func testLinkedRunsOfManyThreadsNeverBlockOneAnother() throws {
    for isSerial: UInt32 in [0, 1] {
      let device = try device {
        $0.io_queues = 3
        $0.io_max_command_buffers = 1
        $0.io_max_commands = 1
        $0.io_serial = isSerial
        $0.piece_bytes = 16 << 10
        $0.io_scratch_bytes = 1 << 16
      }
      let (first, second, content) = try files(device, 50_000, codec: 2)
      let outcomes = (0..<40).map { _ in Outcome() }
      let targets = try outcomes.map { _ in try Buffer.makeShared(device: device, byteLength: 50_000) }
      DispatchQueue.concurrentPerform(iterations: 4) { thread in
        for index in stride(from: thread, to: 40, by: 4) {
          let phases = [first, second].map {
            [StreamLoad(file: $0, fileOffset: 0, target: targets[index], targetOffset: 0, byteLength: 50_000)]
          }
          let work = device.streams.start(phases, ended: { outcomes[index].came($0) })
          if index % 5 == 0 { work.stop() }
        }
      }
      for (index, outcome) in outcomes.enumerated() {
        let end = try XCTUnwrap(outcome.wait(), "serial \(isSerial), run \(index)")
        XCTAssertTrue([nil, index % 5 == 0 ? Status.cancelled : nil].contains(end.failure?.status))
        if end.failure == nil { XCTAssertTrue(bytes(targets[index], 0..<50_000) == content) }
      }
      try closeDevice()
    }
  }

  // MARK: Status words

  func testAStatusThatContradictsTheCommandBufferIsAFailure() throws {
    let device = try device()
    let (raw, _, _) = try files(device, 10_000)
    let packed = try device.streams.open(path: pack(sample(10_000), 2), codec: 2, byteLength: 10_000)
    let target = try Buffer.makeShared(device: device, byteLength: 10_000)
    for (file, status) in [(raw, Status.io), (packed, Status.corrupt)] {
      for code: Int32 in [1, 2, 77] {
        fault(STANDIN_IO_STATUS, code: code)
        let end = wait { device.streams.start([load(file, target, 10_000)], ended: $0) }
        XCTAssertEqual(end.failure?.status, status)
        XCTAssertEqual(end.bytesDone, 0)
        let text = "loading 10000 bytes in 1 parts: MTLIO says that it is complete, and wrote status \(code)"
        XCTAssertEqual(end.failure?.message, text)
      }
      // Not written yet, which says nothing.
      fault(STANDIN_IO_STATUS, code: -1)
      XCTAssertNil(wait { device.streams.start([load(file, target, 10_000)], ended: $0) }.failure)
      XCTAssertEqual(calls(STANDIN_IO_STATUS), 1)
    }
  }

  func testStatusWordsAreBoundedAndUsedAgain() throws {
    let metal = try XCTUnwrap(MTLCreateSystemDefaultDevice())
    let words = try StatusWords(metal: metal, count: 2)
    let queue = try metal.makeIOCommandQueue(descriptor: MTLIOCommandQueueDescriptor())
    for _ in 0..<5 {
      let buffers = (0..<3).map { _ in queue.makeCommandBuffer() }
      let taken = buffers.map { words.follow($0) }
      XCTAssertEqual(taken.compactMap { $0 }.count, 2)
      XCTAssertNil(taken[2])
      for buffer in buffers {
        buffer.commit()
        buffer.waitUntilCompleted()
      }
      for word in taken.compactMap({ $0 }) { XCTAssertNil(words.takeComplaint(word)) }
    }
    fault(STANDIN_MAKE_BUFFER, code: 12)
    XCTAssertThrowsError(try StatusWords(metal: metal, count: 2)) {
      XCTAssertEqual(($0 as? Failure)?.status, Status.outOfMemory)
    }
  }
}
#endif
