import CHeadrace
import XCTest

@testable import HeadraceMetal

/// What is refused as a whole: nothing of such a submission happens.
final class RequestTests: XCTestCase {
  let folder = Folder()

  func testRangesOutsideFilesAndBuffers() throws {
    let rig = try Rig()
    defer { rig.close() }
    let file = try rig.file(try folder.file("a", 1000))
    let buffer = try rig.buffer(1000)
    let event = try rig.event()
    let max = 9_007_199_254_740_991.0
    let bad: [(Double, Double, Double)] = [
      (0, 0, 1001), (1, 0, 1000), (0, 1, 1000), (1001, 0, 0), (-1, 0, 1), (0, -1, 1), (0, 0, -1), (0.5, 0, 1),
      (0, 0, 1.5), (.nan, 0, 1), (0, 0, .infinity), (max, 0, max), (0, max, 10), (1e300, 0, 1),
    ]
    for (from, to, length) in bad {
      for move in [request(HR_READ, 0, from, 1, to, length), request(HR_COPY, 1, from, 1, to, length)] {
        let text = expect(Status.outOfRange) {
          _ = try rig.submit([request(HR_SIGNAL, 2, 0, -1, 0, 1), move], [file, buffer, event])
        }
        XCTAssert(text.hasPrefix("request 1: "), text)
      }
    }
    let text = expect(Status.outOfRange) { _ = try rig.submit([request(HR_READ, 0, 990, 1, 0, 20)], [file, buffer]) }
    XCTAssertEqual(text, "request 0: file: bytes [990, 1010) do not lie in its 1000 bytes")
    var value: UInt64 = 9
    try call { hr_event_value(event, &value, $0) }
    XCTAssertEqual(value, 0)
  }

  func testRequestsOfTheWrongKind() throws {
    let rig = try Rig()
    defer { rig.close() }
    let file = try rig.file(try folder.file("b", 1000))
    let buffer = try rig.buffer(1000)
    let event = try rig.event()
    let mapping = try rig.map(file, 0, 1000)
    let bad = [
      request(HR_READ, 1, 0, 1, 0, 1), request(HR_READ, 0, 0, 0, 0, 1), request(HR_COPY, 0, 0, 1, 0, 1),
      request(HR_COPY, 2, 0, 1, 0, 1), request(HR_SIGNAL, 1, 0, -1, 0, 1), request(HR_WAIT, 0, 0, -1, 0, 1),
      request(HR_WRITE, 1, 0, 0, 0, 1), request(HR_COPY, 1, 0, 1, 10, 20), request(HR_COPY, 9, 0, 1, 0, 1),
      request(HR_COPY, -1, 0, 1, 0, 1), request(HR_COPY, 0.5, 0, 1, 0, 1), request(HR_COPY, .nan, 0, 1, 0, 1),
      request(HR_READ, 0, 0, 3, 0, 1), request(HR_COPY, 1, 0, 3, 0, 1), request(99), request(0), request(-1),
      request(HR_SYNC, 1), request(HR_SIGNAL, 2, 0, -1, 0, -1), request(HR_SIGNAL, 2, 0, -1, 0, 0.5),
      request(HR_WAIT, 2, 0, -1, 0, .nan), request(HR_DISPATCH, 0), request(HR_REPLAY, 1),
    ]
    for one in bad {
      let text = expect(Status.invalid) { _ = try rig.submit([one], [file, buffer, event, mapping]) }
      XCTAssert(text.hasPrefix("request 0: "), text)
    }
    let readOnly = expect(Status.invalid) { _ = try rig.submit([request(HR_COPY, 0, 0, 1, 0, 1)], [buffer, mapping]) }
    XCTAssert(readOnly.contains("read-only"), readOnly)
    var half = request(HR_COPY, 0, 0, 0, 500, 20)
    half.op = 3.5
    expect(Status.invalid) { _ = try rig.submit([half], [buffer]) }
  }

  func testObjectsOfOthersAndClosedOnes() throws {
    let rig = try Rig()
    let other = try Rig()
    defer {
      rig.close()
      other.close()
    }
    let mine = try rig.buffer(100)
    let theirs = try other.buffer(100)
    let copy = request(HR_COPY, 0, 0, 1, 0, 1)
    let text = expect(Status.invalid) { _ = try rig.submit([copy], [theirs, mine]) }
    XCTAssertEqual(text, "object 0 of the submission, a buffer, is not of this device")
    expect(Status.invalid) { _ = try rig.submit([], [other.device]) }
    XCTAssertEqual(hr_close(theirs), 0)
    expect(Status.closed) { _ = try rig.submit([copy], [theirs, mine]) }
    expect(Status.invalid) { _ = try rig.submit([copy], [0, mine]) }
  }

  func testTicketsAndQueues() throws {
    let rig = try Rig()
    defer { rig.close() }
    let event = try rig.event()
    for bad in [0, -1, 0.5, .nan, .infinity, 1e300] {
      expect(Status.invalid) { _ = try rig.submit([], [], queue: rig.queue, ticket: bad, nil) }
    }
    let wait = request(HR_WAIT, 0, 0, -1, 0, 1)
    _ = try rig.submit([wait], [event], queue: rig.queue, ticket: 7, nil)
    expect(Status.invalid) { _ = try rig.submit([], [], queue: rig.queue, ticket: 7, nil) }
    XCTAssertEqual(hr_queue_cancel(rig.queue, 7, Status.io), Status.invalid)
    XCTAssertEqual(hr_queue_cancel(rig.queue, 12345, Status.cancelled), 0)
    XCTAssertEqual(hr_queue_cancel(rig.queue, 7, Status.timedOut), 0)
    XCTAssertEqual(try rig.end(of: 7).status, Double(Status.timedOut))
    XCTAssertEqual(try rig.failure(7), "ticket 7 has not ended in time")
    expect(Status.invalid) { _ = try rig.failure(8) }
  }

  func testMissingArguments() throws {
    let rig = try Rig()
    defer { rig.close() }
    var handle: hr_handle = 0
    var error = hr_error()
    XCTAssertEqual(hr_device_open(0, nil, nil, nil, &error), Status.invalid)
    XCTAssertEqual(message(error), "argument device is NULL")
    XCTAssertEqual(hr_device_info_get(rig.device, nil, nil), Status.invalid)
    XCTAssertEqual(hr_file_open(rig.device, nil, 0, HR_CODEC_NONE, &handle, nil, nil), Status.invalid)
    XCTAssertEqual(hr_buffer_create(rig.device, 1, 0, nil, nil), Status.invalid)
    XCTAssertEqual(hr_queue_submit(rig.queue, nil, 1, nil, nil), Status.invalid)
    XCTAssertEqual(hr_queue_error(rig.queue, 1, nil), Status.invalid)
    var submission = hr_submission()
    submission.request_count = 1
    XCTAssertEqual(hr_queue_submit(rig.queue, &submission, 1, nil, &error), Status.invalid)
    XCTAssert(message(error).contains("1 requests"), message(error))
  }

  func testOptionsOutsideTheirBounds() throws {
    let change: [(String, (inout hr_device_options) -> Void)] = [
      ("lanes is 65", { $0.lanes = 65 }), ("write_lanes is 17", { $0.write_lanes = 17 }),
      ("io_queues is 17", { $0.io_queues = 17 }), ("io_priority is 3", { $0.io_priority = 3 }),
      ("piece_bytes is 4095", { $0.piece_bytes = 4095 }), ("piece_bytes", { $0.piece_bytes = (1 << 30) + 1 }),
      ("flags 32", { $0.flags = 32 }),
    ]
    for (part, change) in change {
      var options = hr_device_options()
      change(&options)
      let text = expect(Status.invalid) { _ = try Rig(options) }
      XCTAssert(text.contains(part), text)
    }
    var handle: hr_handle = 0
    var wake: Int32 = 0
    expect(Status.unsupported) { try call { hr_device_open(99, nil, &handle, &wake, $0) } }
  }

  func testSizesAndVersion() {
    var sizes = [UInt32](repeating: 0, count: 12)
    XCTAssertEqual(hr_struct_sizes(&sizes, 12), 12)
    XCTAssertEqual(sizes, [256, 224, 72, 32, 48, 56, 32, 16, 72, 128, 16, 16])
    var two: [UInt32] = [7, 7, 7]
    XCTAssertEqual(hr_struct_sizes(&two, 2), 12)
    XCTAssertEqual(two, [256, 224, 7])
    XCTAssertEqual(hr_struct_sizes(nil, 0), 12)
    XCTAssertEqual(hr_abi_version(), 2)
    XCTAssertGreaterThan(hr_device_count(), 0)
  }
}
