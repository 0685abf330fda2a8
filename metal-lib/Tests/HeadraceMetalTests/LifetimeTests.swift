import CHeadrace
import Foundation
import XCTest

@testable import HeadraceMetal

#if canImport(CStandIn)
  import CStandIn
#endif

/// What the process holds: back to the start when all is closed.
struct Holdings: CustomStringConvertible {
  var descriptors = 0
  var mappings = 0
  var threads = 0
  var objects: [UInt64] = []

  var description: String {
    "\(descriptors) descriptors, \(mappings) mappings, \(threads) lanes, Metal objects \(objects)"
  }

  /// Whether nothing is left that was not there before; other tests' remains may go meanwhile.
  func isWithin(_ before: Holdings) -> Bool {
    descriptors <= before.descriptors && mappings <= before.mappings && threads <= before.threads
      && zip(objects, before.objects).allSatisfy { $0 <= $1 }
  }

  /// Of a file whose length nobody knows beforehand.
  private static func lines(_ path: String) -> [Substring] {
    guard let handle = FileHandle(forReadingAtPath: path) else { return [] }
    defer { try? handle.close() }
    var bytes = Data()
    while let more = try? handle.read(upToCount: 1 << 16), !more.isEmpty { bytes += more }
    return String(decoding: bytes, as: UTF8.self).split(separator: "\n")
  }

  /// Mappings are those of files in `folder`; threads those of lanes.
  init(_ folder: String) {
    #if os(Linux)
      let files = FileManager.default
      descriptors = (try? files.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? -1
      mappings = Holdings.lines("/proc/self/maps").filter { $0.contains(folder) }.count
      for task in (try? files.contentsOfDirectory(atPath: "/proc/self/task")) ?? [] {
        if Holdings.lines("/proc/self/task/\(task)/comm").first?.hasPrefix("headrace-") ?? false { threads += 1 }
      }
    #endif
    #if canImport(CStandIn)
      var live = standin_counts()
      standin_live(&live)
      objects = [
        live.buffers, live.heaps, live.events, live.queues, live.command_buffers, live.io_queues, live.io_handles,
        live.residency_sets,
      ]
    #endif
  }
}

final class LifetimeTests: XCTestCase {
  let folder = Folder()

  /// Closes all in flight in random order; what was taken ends, and all is given back.
  private func round(_ path: String) throws {
    var options = hr_device_options()
    options.piece_bytes = 65536
    let rig = try Rig(options)
    let size = 2 << 20
    let file = try rig.file(path)
    let mapping = try rig.map(file, 8, size - 8)
    let buffer = try rig.buffer(size)
    let copied = try rig.buffer(size)
    let hidden = try rig.buffer(size, HR_PRIVATE)
    let event = try rig.event()
    let objects = [file, mapping, buffer, copied, hidden, event]
    // Copies of whole words need no kernel, which would be compiled for each device.
    let length = Double(size - 8)
    var tickets: [Double] = []
    for _ in 0..<4 {
      tickets.append(
        try rig.submit(
          [
            request(HR_READ, 0, 0, 2, 0, length), request(HR_COPY, 1, 0, 3, 0, length), request(HR_BARRIER),
            request(HR_COPY, 1, 0, 4, 0, length), request(HR_READ, 0, 1, 4, 4, 1000),
          ], objects
        ).ticket)
      tickets.append(try rig.submit([request(HR_WAIT, 5, 0, -1, 0, 1)], objects).ticket)
    }
    for handle in (objects + (Bool.random() ? [rig.queue] : [])).shuffled() { XCTAssertEqual(hr_close(handle), 0) }
    if Bool.random() { usleep(UInt32.random(in: 0..<3000)) }
    rig.close()
  }

  func testClosingInFlightGivesAllBack() throws {
    let path = try folder.file("in-flight", 2 << 20)
    try round(path)
    eventually("the first round is over") { Holdings(folder.path).threads == 0 }
    let before = Holdings(folder.path)
    for _ in 0..<60 { try round(path) }
    eventually("all is given back: \(before) before, \(Holdings(folder.path)) now") { Holdings(folder.path).isWithin(before) }
  }

  /// A cancel that meets a lane on its way from a read to a wait: the ticket ends, and quiets down.
  func testCancelsBetweenStepsQuietDown() throws {
    let rig = try Rig()
    defer { rig.close() }
    let file = try rig.file(try folder.file("between", 4096))
    let buffer = try rig.buffer(4096)
    let event = try rig.event()
    var rows = [hr_completion](repeating: hr_completion(), count: 8)
    for round in 0..<3000 {
      let (ticket, _) = try rig.submit(
        [request(HR_READ, 0, 0, 1, 0, 4096), request(HR_WAIT, 2, 0, -1, 0, 1)], [file, buffer, event])
      for _ in 0..<(round % 60) * 20 { sched_yield() }
      XCTAssertEqual(hr_queue_cancel(rig.queue, ticket, Status.cancelled), 0)
      var flags = 0
      while flags & HR_QUIET == 0 {
        let count = hr_device_wait(rig.device, &rows, 8, 5000)
        guard count > 0 else { return XCTFail("round \(round): not quiet after 5 s") }
        for row in rows[..<Int(count)] { flags |= Int(row.flags) }
      }
    }
  }

  func testMemoryClosedInFlightStaysUntilTheTicketEnds() throws {
    let rig = try Rig()
    defer { rig.close() }
    let size = 4 << 20
    let path = try folder.file("stays", size)
    for _ in 0..<5 {
      let file = try rig.file(path)
      let mapping = try rig.map(file, 0, size)
      let event = try rig.event()
      let handle = try rig.buffer(size)
      let object = try handles.find(handle, as: Buffer.self)
      let (ticket, _) = try rig.submit(
        [request(HR_WAIT, 3, 0, -1, 0, 1), request(HR_COPY, 1, 0, 2, 0, Double(size))], [file, mapping, handle, event])
      for closed in [file, mapping, handle] { XCTAssertEqual(hr_close(closed), 0) }
      try call { hr_event_signal(event, 1, $0) }
      XCTAssertEqual(try rig.end(of: ticket).status, 0)
      let start = try XCTUnwrap(object.bytes)
      XCTAssert(Data(bytesNoCopy: start, count: size, deallocator: .none) == Data(pattern(size)))
    }
  }

  func testMemoryIsGoneWhenTheTicketIsQuiet() throws {
    let rig = try Rig()
    defer { rig.close() }
    let path = try folder.file("gone", 100_000)
    for _ in 0..<20 {
      let file = try rig.file(path)
      let mapping = try rig.map(file, 0, 100_000)
      let event = try rig.event()
      let (ticket, _) = try rig.submit([request(HR_WAIT, 1, 0, -1, 0, 1)], [mapping, event])
      for closed in [file, mapping] { XCTAssertEqual(hr_close(closed), 0) }
      #if os(Linux)
        XCTAssertEqual(Holdings(folder.path).mappings, 1)
      #endif
      XCTAssertEqual(hr_queue_cancel(rig.queue, ticket, Status.cancelled), 0)
      XCTAssertEqual(try rig.end(of: ticket).flags, 3)
      XCTAssertEqual(Holdings(folder.path).mappings, 0)
      XCTAssertEqual(hr_close(event), 0)
    }
  }

  func testClosingAQueueCancelsWhatItHas() throws {
    let rig = try Rig()
    defer { rig.close() }
    let event = try rig.event()
    let own = try Rig.queue(rig.device)
    let wait = request(HR_WAIT, 0, 0, -1, 0, 1)
    for ticket in 1...100 {
      XCTAssertEqual(try rig.submit([wait], [event], queue: own, ticket: Double(ticket), nil), 0)
    }
    XCTAssertEqual(hr_close(own), 0)
    for ticket in 1...100 {
      let row = try rig.end(of: Double(ticket), queue: own)
      XCTAssertEqual(row.status, Double(Status.cancelled))
      XCTAssertEqual(row.flags, 3)
    }
    expect(Status.closed) { _ = try rig.submit([], [], queue: own, ticket: 101, nil) }
  }

  func testAThousandOpensAndClosesLeaveNothing() throws {
    let path = try folder.file("cycles", 50_000)
    let rig = try Rig()
    let before = Holdings(folder.path)
    for cycle in 0..<1000 {
      let file = try rig.file(path)
      let made = [file, try rig.map(file, cycle, 10_000), try rig.buffer(10_000), try rig.event()]
      for handle in made { XCTAssertEqual(hr_close(handle), 0) }
    }
    XCTAssertEqual(rig.openHandles, 1)
    // Memory leaves the residency set in the background.
    eventually("handles leave nothing: \(before), \(Holdings(folder.path))") { Holdings(folder.path).isWithin(before) }
    rig.close()
    let after = Holdings(folder.path)
    for _ in 0..<50 { try Rig().close() }
    eventually("devices leave nothing: \(after), \(Holdings(folder.path))") { Holdings(folder.path).isWithin(after) }
  }

  func testAnIdleDeviceUsesNoProcessorTime() throws {
    let rig = try Rig()
    defer { rig.close() }
    let file = try rig.file(try folder.file("idle", 1 << 20))
    let buffer = try rig.buffer(1 << 20)
    XCTAssertEqual(try rig.run([request(HR_READ, 0, 0, 1, 0, Double(1 << 20))], [file, buffer]).status, 0)
    usleep(100_000)
    let before = clock()
    usleep(300_000)
    XCTAssertLessThan(Double(clock() - before) / Double(CLOCKS_PER_SEC), 0.05)
  }
}
