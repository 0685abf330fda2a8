import CHeadrace
import Foundation
import XCTest

@testable import HeadraceMetal

#if canImport(CStandIn)
  import CStandIn
#endif

/// A status of the ABI with its text, thrown where a test expected none.
struct Refused: Error, CustomStringConvertible {
  let status: hr_status
  let text: String
  var description: String { "\(status): \(text)" }
}

/// The text of an error.
func message(_ error: hr_error) -> String {
  withUnsafeBytes(of: error.message) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
}

/// Calls an exported function; throws what it refused.
@discardableResult
func call(_ body: (UnsafeMutablePointer<hr_error>) -> hr_status) throws -> hr_status {
  var error = hr_error()
  let status = body(&error)
  if status < 0 { throw Refused(status: status, text: message(error)) }
  return status
}

/// `body` refuses with `status`; gives the text.
@discardableResult
func expect(
  _ status: hr_status, file: StaticString = #filePath, line: UInt = #line, _ body: () throws -> Void
) -> String {
  do {
    try body()
    XCTFail("expected \(status), and nothing was refused", file: file, line: line)
  } catch let refused as Refused {
    XCTAssertEqual(refused.status, status, refused.text, file: file, line: line)
    XCTAssertFalse(refused.text.contains("\n"), file: file, line: line)
    return refused.text
  } catch {
    XCTFail("\(error)", file: file, line: line)
  }
  return ""
}

/// A folder of its own, removed at the end.
final class Folder {
  let path: String

  init() {
    // As the system shows it in lists of mappings.
    path = URL(fileURLWithPath: NSTemporaryDirectory()).resolvingSymlinksInPath().path + "/headrace-" + UUID().uuidString
    try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  func file(_ name: String, _ byteLength: Int, seed: Int = 1) throws -> String {
    let path = self.path + "/" + name
    try Data(pattern(byteLength, seed: seed)).write(to: URL(fileURLWithPath: path))
    return path
  }

  func truncate(_ name: String, to byteLength: Int) {
    XCTAssertEqual(Foundation.truncate(path + "/" + name, off_t(byteLength)), 0)
  }
}

/// Bytes that differ from their neighbours and from those a page on.
func pattern(_ byteLength: Int, seed: Int = 1) -> [UInt8] {
  [UInt8](unsafeUninitializedCapacity: byteLength) { bytes, count in
    var at = 0
    while at < byteLength {
      bytes[at] = UInt8(truncatingIfNeeded: at &* 31 &+ (at >> 8) &* 7 &+ seed &* 13)
      at &+= 1
    }
    count = byteLength
  }
}

/// A request in the ABI's form; objects are indices.
func request(
  _ op: Int, _ source: Double = -1, _ sourceOffset: Double = 0, _ target: Double = -1, _ targetOffset: Double = 0,
  _ byteLength: Double = 0
) -> hr_request {
  hr_request(
    op: Double(op), source: source, source_offset: sourceOffset, target: target, target_offset: targetOffset,
    byte_length: byteLength)
}

/// A device under test with one queue, driven through the exported functions alone.
final class Rig: @unchecked Sendable {  // Tests that share one between threads lock for themselves.
  let device: hr_handle
  let wake: Int32
  let queue: hr_handle
  private var ticket = 0.0
  /// Rows that came and were not asked for yet.
  private var rows: [hr_completion] = []

  init(_ options: hr_device_options = hr_device_options()) throws {
    var device: hr_handle = 0
    var wake: Int32 = -1
    try withUnsafePointer(to: options) { options in
      _ = try call { hr_device_open(0, options, &device, &wake, $0) }
    }
    self.device = device
    self.wake = wake
    queue = try Rig.queue(device)
  }

  static func queue(_ device: hr_handle) throws -> hr_handle {
    var queue: hr_handle = 0
    try call { hr_queue_create(device, &queue, $0) }
    return queue
  }

  /// Closes the device and takes what is left until it says that it is closed.
  func close() {
    XCTAssertEqual(hr_close(device), 0)
    drain()
  }

  func drain() {
    var rows = [hr_completion](repeating: hr_completion(), count: 256)
    while hr_device_wait(device, &rows, 256, 10_000) > 0 {}
    XCTAssertEqual(hr_device_wait(device, &rows, 256, 0), Status.closed)
  }

  var openHandles: Int { Int(hr_device_open_handles(device)) }

  func file(_ path: String, _ flags: Int = 0) throws -> hr_handle {
    var file: hr_handle = 0
    var length: UInt64 = 0
    try call { hr_file_open(device, path, UInt32(flags), HR_CODEC_NONE, &file, &length, $0) }
    return file
  }

  func buffer(_ byteLength: Int, _ storage: Int = HR_SHARED) throws -> hr_handle {
    var buffer: hr_handle = 0
    try call { hr_buffer_create(device, UInt64(byteLength), UInt32(storage), &buffer, $0) }
    return buffer
  }

  func map(_ file: hr_handle, _ offset: Int, _ byteLength: Int) throws -> hr_handle {
    var buffer: hr_handle = 0
    try call { hr_file_map(file, UInt64(offset), UInt64(byteLength), &buffer, $0) }
    return buffer
  }

  func event() throws -> hr_handle {
    var event: hr_handle = 0
    try call { hr_event_create(device, &event, $0) }
    return event
  }

  func info(_ buffer: hr_handle) throws -> hr_buffer_info {
    var info = hr_buffer_info()
    try call { hr_buffer_info_get(buffer, &info, $0) }
    return info
  }

  func bytes(_ buffer: hr_handle) throws -> UnsafeMutableBufferPointer<UInt8> {
    let info = try self.info(buffer)
    let start = try XCTUnwrap(UnsafeMutablePointer<UInt8>(bitPattern: UInt(info.host_address)))
    return UnsafeMutableBufferPointer(start: start, count: Int(info.byte_length))
  }

  /// Submits; gives the ticket, and its row where it ended at once.
  func submit(
    _ requests: [hr_request], _ objects: [hr_handle], queue: hr_handle? = nil
  ) throws -> (ticket: Double, row: hr_completion?) {
    ticket += 1
    var row = hr_completion()
    let status = try submit(requests, objects, queue: queue ?? self.queue, ticket: ticket, &row)
    return (ticket, status == 1 ? row : nil)
  }

  func submit(
    _ requests: [hr_request], _ objects: [hr_handle], queue: hr_handle, ticket: Double,
    _ row: UnsafeMutablePointer<hr_completion>?
  ) throws -> hr_status {
    try requests.withUnsafeBufferPointer { requests in
      try objects.withUnsafeBufferPointer { objects in
        var submission = hr_submission()
        submission.requests = requests.baseAddress
        submission.request_count = UInt32(requests.count)
        submission.objects = objects.baseAddress
        submission.object_count = UInt32(objects.count)
        return try call { hr_queue_submit(queue, &submission, ticket, row, $0) }
      }
    }
  }

  /// Submits and waits until the ticket is quiet.
  @discardableResult
  func run(_ requests: [hr_request], _ objects: [hr_handle]) throws -> hr_completion {
    let (ticket, row) = try submit(requests, objects)
    return try row ?? end(of: ticket)
  }

  /// The row that ends a ticket of the rig's queue, waited for; with `flags` another one of its rows.
  func end(of ticket: Double, flags: Int = HR_ENDED, queue: hr_handle? = nil) throws -> hr_completion {
    let number = Double(queue ?? self.queue)
    for _ in 0..<100_000 {
      let index = rows.firstIndex { $0.ticket == ticket && $0.queue == number && Int($0.flags) & flags != 0 }
      if let index { return rows.remove(at: index) }
      var row = hr_completion()
      let count = hr_device_wait(device, &row, 1, 20_000)
      guard count == 1 else { throw Refused(status: count, text: "no row of ticket \(ticket) came") }
      rows.append(row)
    }
    throw Refused(status: 0, text: "ticket \(ticket) has not ended")
  }

  /// The text of a failed ticket.
  func failure(_ ticket: Double) throws -> String {
    var error = hr_error()
    let status = hr_queue_error(queue, ticket, &error)
    if status != 0 { throw Refused(status: status, text: message(error)) }
    return message(error)
  }

  /// Submits what has to fail with `status`; gives the text.
  @discardableResult
  func fail(
    _ status: hr_status, _ requests: [hr_request], _ objects: [hr_handle], file: StaticString = #filePath,
    line: UInt = #line
  ) throws -> String {
    let row = try run(requests, objects)
    XCTAssertEqual(row.status, Double(status), file: file, line: line)
    return try failure(row.ticket)
  }
}

/// Waits until `condition` holds.
func eventually(_ what: @autoclosure () -> String, file: StaticString = #filePath, line: UInt = #line, _ condition: () -> Bool) {
  let deadline = clockMs() + 10_000
  while !condition() {
    if clockMs() > deadline { return XCTFail(what(), file: file, line: line) }
    usleep(1000)
  }
}

#if canImport(CStandIn)
  /// Makes calls fail as the stand-in's header says; with none lets all go well.
  func setFaults(_ faults: [standin_fault]) {
    standin_set_faults(faults, UInt32(faults.count))
  }

  func fault(
    _ call: Int, nth: UInt32 = 1, times: UInt32 = 1, code: Int32 = 0, limit: Int64 = -1, delayMs: UInt32 = 0
  ) -> standin_fault {
    standin_fault(call: UInt32(call), nth: nth, times: times, code: code, limit: limit, delay_us: delayMs * 1000)
  }
#endif
