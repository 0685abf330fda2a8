import CHeadrace
import XCTest

@testable import HeadraceMetal

final class MoveTests: XCTestCase {
  let folder = Folder()

  func testReadsOfAnySizeTouchNothingElse() throws {
    for pieceBytes: UInt64 in [0, 4096] {
      var options = hr_device_options()
      options.piece_bytes = pieceBytes
      let rig = try Rig(options)
      defer { rig.close() }
      let expected = pattern(100_000)
      let file = try rig.file(try folder.file("sizes", 100_000))
      let buffer = try rig.buffer(60_000)
      let bytes = try rig.bytes(buffer)
      for count in [0, 1, 4095, 4096, 4097, 16383, 16384, 50_000] {
        for index in bytes.indices { bytes[index] = 0xee }
        let row = try rig.run([request(HR_READ, 0, 33, 1, 100, Double(count))], [file, buffer])
        XCTAssertEqual(row.status, 0)
        XCTAssertEqual(row.bytes_done, Double(count))
        XCTAssertEqual(Array(bytes[100..<100 + count]), Array(expected[33..<33 + count]))
        XCTAssert(bytes[..<100].allSatisfy { $0 == 0xee } && bytes[(100 + count)...].allSatisfy { $0 == 0xee })
      }
    }
  }

  func testNewMemoryIsZeroedAndAligned() throws {
    let rig = try Rig()
    defer { rig.close() }
    for size in [0, 1, 16384, 100_000, 3 << 20] {
      let buffer = try rig.buffer(size)
      let info = try rig.info(buffer)
      XCTAssertEqual(info.byte_length, UInt64(size))
      XCTAssertEqual(info.host_address % (size >= 2 << 20 ? 2 << 20 : 16384), 0)
      XCTAssertNotEqual(info.gpu_address, 0)
      XCTAssertNotEqual(info.native_object, 0)
      XCTAssert(try rig.bytes(buffer).allSatisfy { $0 == 0 })
    }
  }

  func testWrittenBytesAreReadBack() throws {
    let rig = try Rig()
    defer { rig.close() }
    let path = folder.path + "/written"
    for flags in [HR_FILE_WRITE, HR_FILE_WRITE | HR_FILE_NO_CACHE] {
      let file = try rig.file(path, flags)
      let source = try rig.buffer(70_000)
      let target = try rig.buffer(70_000)
      _ = try rig.bytes(source).update(fromContentsOf: pattern(70_000, seed: flags))
      let row = try rig.run(
        [
          request(HR_WRITE, 1, 5, 0, 10, 60_000), request(HR_SYNC, 0), request(HR_BARRIER),
          request(HR_READ, 0, 10, 2, 3, 60_000),
        ], [file, source, target])
      XCTAssertEqual(row.status, 0)
      XCTAssertEqual(row.bytes_done, 120_000)
      XCTAssertEqual(Array(try rig.bytes(target)[3..<60_003]), Array(pattern(70_000, seed: flags)[5..<60_005]))
      var length: UInt64 = 0
      try call { hr_file_length(file, &length, $0) }
      XCTAssertEqual(length, 60_010)
    }
  }

  func testSmallCopiesEndWithinTheCallAndLargeOnesLater() throws {
    var options = hr_device_options()
    options.inline_copy_bytes = 1000
    let rig = try Rig(options)
    defer { rig.close() }
    let a = try rig.buffer(3 << 20)
    let b = try rig.buffer(3 << 20)
    _ = try rig.bytes(a).update(fromContentsOf: pattern(3 << 20))
    let small = try rig.submit([request(HR_COPY, 0, 7, 1, 9, 1000)], [a, b])
    XCTAssertEqual(small.row?.flags, Double(HR_ENDED | HR_QUIET))
    XCTAssertEqual(small.row?.bytes_done, 1000)
    XCTAssertEqual(Array(try rig.bytes(b)[9..<1009]), Array(pattern(3 << 20)[7..<1007]))
    let large = try rig.run([request(HR_COPY, 0, 0, 1, 0, Double(3 << 20))], [a, b])
    XCTAssertEqual(large.bytes_done, Double(3 << 20))
    XCTAssertGreaterThan(large.started_ms, 0)
    XCTAssertGreaterThanOrEqual(large.ended_ms, large.started_ms)
    XCTAssertEqual(Array(try rig.bytes(b)), pattern(3 << 20))
    // The row of the first went to its caller alone.
    var row = hr_completion()
    XCTAssertEqual(hr_device_poll(rig.device, &row, 1), 0)
  }

  func testAnEmptySubmissionEndsAtOnce() throws {
    let rig = try Rig()
    defer { rig.close() }
    let (_, row) = try rig.submit([], [])
    XCTAssertEqual(row?.flags, 3)
    XCTAssertEqual(row?.bytes_done, 0)
    // Without a place for its row it comes through the ring.
    XCTAssertEqual(try rig.submit([], [], queue: rig.queue, ticket: 99, nil), 0)
    XCTAssertEqual(try rig.end(of: 99).flags, 3)
  }

  func testManySmallReadsAndCopiesLandWhereTheyShould() throws {
    var options = hr_device_options()
    options.inline_copy_bytes = 1
    let rig = try Rig(options)
    defer { rig.close() }
    let bytes = pattern(1 << 20, seed: 4)
    let file = try rig.file(try folder.file("rows", 1 << 20, seed: 4))
    let mapping = try rig.map(file, 5, (1 << 20) - 5)
    let target = try rig.buffer(5000 * 64)
    var requests: [hr_request] = []
    var expected = [UInt8](repeating: 0, count: 5000 * 64)
    for row in 0..<5000 {
      let from = Int.random(in: 5...bytes.count - 64)
      let isRead = row % 2 == 0
      requests.append(
        request(isRead ? HR_READ : HR_COPY, isRead ? 0 : 1, Double(isRead ? from : from - 5), 2, Double(row * 64), 64))
      expected.replaceSubrange(row * 64..<row * 64 + 64, with: bytes[from..<from + 64])
    }
    let row = try rig.run(requests, [file, mapping, target])
    XCTAssertEqual(row.status, 0)
    XCTAssertEqual(row.bytes_done, 5000 * 64)
    XCTAssert(Array(try rig.bytes(target)) == expected)
  }

  func testAHundredThousandRequestsInOneSubmission() throws {
    let rig = try Rig()
    defer { rig.close() }
    let file = try rig.file(try folder.file("many", 100_000))
    let buffer = try rig.buffer(100_000)
    let requests = (0..<100_000).map { request(HR_READ, 0, Double($0), 1, Double($0), 1) }
    let row = try rig.run(requests, [file, buffer])
    XCTAssertEqual(row.bytes_done, 100_000)
    XCTAssert(Array(try rig.bytes(buffer)) == pattern(100_000))
  }

  func testTwentyThousandSubmissionsBeforeAPoll() throws {
    let rig = try Rig()
    defer { rig.close() }
    let event = try rig.event()
    let a = try rig.buffer(100)
    for ticket in 1...20_000 {
      let submitted = try rig.submit([request(HR_WAIT, 0, 0, -1, 0, Double(ticket)), request(HR_COPY, 1, 0, 1, 50, 8)], [event, a])
      XCTAssertNil(submitted.row)
    }
    try call { hr_event_signal(event, 20_000, $0) }
    var rows = [hr_completion](repeating: hr_completion(), count: 1000)
    var seen = Set<Double>()
    while seen.count < 20_000 {
      let count = Int(hr_device_wait(rig.device, &rows, 1000, 10_000))
      guard count > 0 else { return XCTFail("\(seen.count) rows came") }
      for row in rows[..<count] {
        XCTAssertEqual(row.status, 0)
        XCTAssert(seen.insert(row.ticket).inserted)
      }
    }
  }
}
