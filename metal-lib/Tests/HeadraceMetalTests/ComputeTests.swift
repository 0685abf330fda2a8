import CHeadrace
import XCTest

@testable import HeadraceMetal

/// Kernels through the exported functions.
final class ComputeTests: XCTestCase {
  func testLaunchesSeeTheOnesBefore() throws {
    let rig = try Rig()
    defer { rig.close() }
    let library = try rig.library(Sources.words)
    let set = try rig.pipeline(library, "set")
    XCTAssertEqual(set.info.simd_width, 32)
    XCTAssertEqual(set.info.from_archive, 0)
    XCTAssertGreaterThanOrEqual(set.info.max_threads, 256)
    let step = try rig.pipeline(library, "step").handle
    let buffer = try rig.buffer(4 * 1000)
    // More than one command buffer holds.
    var launches = [Launch(set.handle, [0], bytes(5, 1000), threads: 1000)]
    for value in 0..<1500 { launches.append(Launch(step, [0], bytes(UInt32(value), 900), threads: 1000)) }
    let row = try rig.launch(launches, [buffer], ticket: 1)
    XCTAssertEqual(row.status, 0)
    let words = try rig.words(buffer)
    for i in [0, 1, 899, 900, 999] {
      var expected = UInt32(5 + i)
      if i < 900 { for value in 0..<1500 { expected = expected &* 3 &+ UInt32(value) } }
      XCTAssertEqual(words[i], expected, "word \(i)")
    }
  }

  func testTimesFollowOneAnother() throws {
    let rig = try Rig()
    defer { rig.close() }
    let set = try rig.kernel(Sources.words, "set")
    let buffer = try rig.buffer(4096)
    let row = try rig.launch([Launch(set, [0], bytes(1, 1000), threads: 1000)], [buffer], ticket: 1)
    let times = [
      row.submitted_ms, row.started_ms, row.encoded_ms, row.kernel_start_ms, row.kernel_end_ms, row.gpu_start_ms, row.gpu_end_ms, row.ended_ms,
    ]
    for (earlier, later) in zip(times, times.dropFirst()) { XCTAssertLessThanOrEqual(earlier, later, "\(times)") }
    XCTAssertGreaterThan(row.submitted_ms, 0)
    XCTAssertLessThanOrEqual(row.encoded_ms, row.committed_ms)
    XCTAssertLessThanOrEqual(row.encoded_ms, row.scheduled_ms)
    XCTAssertLessThanOrEqual(row.scheduled_ms, row.ended_ms)
  }

  func testThreadgroupMemoryAndOffsets() throws {
    let rig = try Rig()
    defer { rig.close() }
    let sum = try rig.kernel(Sources.words, "sum")
    let input = try rig.buffer(4 * 1100)
    let output = try rig.buffer(64)
    let words = try rig.words(input)
    for i in words.indices { words[i] = UInt32(i * 7) }
    var launch = Launch(sum, [0, 1], threads: 1000)
    launch.buffers[0].offset = 400
    launch.buffers[1].offset = 8
    launch.group = (128, 1, 1)
    launch.groupMemory = 4 * 128 - 3
    XCTAssertEqual(try rig.launch([launch], [input, output], ticket: 1).status, 0)
    let sums = try rig.words(output)
    for group in 0..<8 {
      let range = (100 + group * 128)..<min(1100, 100 + group * 128 + 128)
      XCTAssertEqual(sums[2 + group], UInt32(range.reduce(0) { $0 + $1 * 7 }), "group \(group)")
    }
  }

  func testSequencesRunAgainWithOtherOffsets() throws {
    let rig = try Rig()
    defer { rig.close() }
    let library = try rig.library(Sources.words)
    let set = try rig.pipeline(library, "set").handle
    let move = try rig.pipeline(library, "move").handle
    let from = try rig.buffer(4096)
    let to = try rig.buffer(4096)
    var first = Launch(set, [Int(from)], bytes(100, 8), threads: 8)
    first.buffers[0].slot = 0
    var second = Launch(move, [Int(from), Int(to)], threads: 8)
    second.buffers[0].slot = 0
    second.buffers[1].slot = 2
    second.buffers[1].offset = 64
    let sequence = try rig.sequence([first, second])
    func replay(_ offsets: [(Double, Double)], ticket: Double) throws -> hr_completion {
      let offsets = offsets.map { hr_offset(slot: $0.0, offset: $0.1) }
      let replay = request(HR_REPLAY, 0, 0, -1, 0, Double(offsets.count))
      try rig.submit([replay], [sequence], launches: [], offsets: offsets, ticket: ticket)
      return try rig.end(of: ticket)
    }
    XCTAssertEqual(try replay([], ticket: 1).status, 0)
    XCTAssertEqual(try replay([(0, 256), (2, 1024)], ticket: 2).status, 0)
    XCTAssertEqual(try replay([(2, 2048)], ticket: 3).status, 0)
    let source = try rig.words(from)
    let target = try rig.words(to)
    for i in 0..<8 {
      XCTAssertEqual(source[64 + i], UInt32(100 + i))
      for start in [16, 256, 512] { XCTAssertEqual(target[start + i], UInt32(100 + i), "offset \(start * 4)") }
    }
    XCTAssertEqual(target[24], 0)
    expect(Status.outOfRange) { _ = try replay([(0, 4096)], ticket: 4) }
    expect(Status.invalid) { _ = try replay([(1, 0)], ticket: 5) }
    expect(Status.invalid) { _ = try replay([(0, 2)], ticket: 5) }
    expect(Status.invalid) { _ = try replay([(3, 0)], ticket: 6) }
    // The sequence keeps what it uses.
    for handle in [from, to, set, move, library] { XCTAssertEqual(hr_close(handle), 0) }
    XCTAssertEqual(try replay([(0, 512)], ticket: 7).status, 0)
  }

  func testPrivateMemoryIsCopiedAtAnyOffset() throws {
    let rig = try Rig()
    defer { rig.close() }
    let source = try rig.buffer(5000)
    let hidden = try rig.buffer(5000, HR_PRIVATE)
    let target = try rig.buffer(5000)
    let from = try rig.bytes(source)
    let to = try rig.bytes(target)
    let expected = pattern(5000)
    for i in from.indices { from[i] = expected[i] }
    for (start, middle, end, count) in [(0, 0, 0, 4096), (3, 8, 1, 1001), (4, 5, 4, 16), (16, 32, 64, 7), (0, 0, 0, 1)] {
      for i in to.indices { to[i] = 0xee }
      let row = try rig.run(
        [
          request(HR_COPY, 0, Double(start), 1, Double(middle), Double(count)), request(HR_BARRIER),
          request(HR_COPY, 1, Double(middle), 2, Double(end), Double(count)),
        ], [source, hidden, target])
      XCTAssertEqual(row.status, 0)
      XCTAssertEqual(row.bytes_done, Double(2 * count))
      XCTAssertEqual(Array(to[end..<end + count]), Array(expected[start..<start + count]), "\(count) bytes")
      XCTAssert(to[..<end].allSatisfy { $0 == 0xee } && to[(end + count)...].allSatisfy { $0 == 0xee })
    }
  }

  func testMappedFilesAreReadByKernels() throws {
    let rig = try Rig()
    defer { rig.close() }
    let folder = Folder()
    let file = try rig.file(try folder.file("mapped", 100_000))
    let mapped = try rig.map(file, 20_004, 40_000)
    let output = try rig.buffer(4000)
    let move = try rig.kernel(Sources.words, "move")
    var launch = Launch(move, [0, 1], threads: 1000)
    launch.buffers[0].offset = 8
    XCTAssertEqual(try rig.launch([launch], [mapped, output], ticket: 1).status, 0)
    XCTAssertEqual(Array(try rig.bytes(output)), Array(pattern(100_000)[20_012..<24_012]))
    folder.truncate("mapped", to: 30_000)
    expect(Status.fileChanged) { try rig.launch([launch], [mapped, output], ticket: 2) }
  }

  func testWrongLaunchesAreRefused() throws {
    let rig = try Rig()
    defer { rig.close() }
    let other = try Rig()
    defer { other.close() }
    let set = try rig.kernel(Sources.words, "set")
    let buffer = try rig.buffer(4096)
    let good = Launch(set, [0], bytes(1, 10), threads: 10)
    func refuse(_ status: hr_status, _ change: (inout Launch) throws -> Void, line: UInt = #line) rethrows {
      var launch = good
      try change(&launch)
      expect(status, line: line) { try rig.launch([launch], [buffer], ticket: 1) }
    }
    refuse(Status.invalid) { $0.buffers[0].buffer = 1 }
    refuse(Status.outOfRange) { $0.buffers[0].offset = 4096 }
    refuse(Status.outOfRange) { $0.buffers[0].offset = 0.5 }
    refuse(Status.invalid) { $0.buffers[0].index = 31 }
    refuse(Status.invalid) { $0.buffers[0].index = 1 }
    refuse(Status.invalid) { $0.pipeline = buffer }
    refuse(Status.invalid) { $0.buffers = [] }
    refuse(Status.invalid) { $0.constants = [] }
    refuse(Status.outOfRange) { $0.constants.removeLast() }
    refuse(Status.invalid) { $0.buffers[0].offset = 6 }
    try refuse(Status.invalid) {
      $0.pipeline = try rig.kernel(Sources.words, "sum")
      $0.buffers = [Launch.Bound(buffer: 0), Launch.Bound(buffer: 0)]
      $0.constants = []
    }
    refuse(Status.outOfRange) { $0.constants = [UInt8](repeating: 0, count: 4097) }
    refuse(Status.outOfRange) { $0.group = (1025, 1, 1) }
    refuse(Status.outOfRange) { $0.group = (.max, .max, .max) }
    refuse(Status.outOfRange) { $0.groupMemory = 32769 }
    try refuse(Status.invalid) { $0.pipeline = try other.kernel(Sources.words, "set") }
    let closed = try rig.kernel(Sources.words, "move")
    XCTAssertEqual(hr_close(closed), 0)
    refuse(Status.closed) { $0.pipeline = closed }
    XCTAssertEqual(try rig.launch([good], [buffer], ticket: 1).status, 0)
    var none = good
    none.threads = (0, 1, 1)
    XCTAssertEqual(try rig.launch([none], [buffer], ticket: 2).status, 0)
  }
}
