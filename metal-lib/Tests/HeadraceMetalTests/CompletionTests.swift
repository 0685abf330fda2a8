import CHeadrace
import Foundation
import XCTest

@testable import HeadraceMetal

final class CompletionTests: XCTestCase {
  /// Bytes that wait at the caller's end; -1 at its end of file.
  private func wakes(_ descriptor: Int32) -> Int {
    var bytes = [UInt8](repeating: 0, count: 100)
    let count = read(descriptor, &bytes, 100)
    return count == 0 ? -1 : max(0, count)
  }

  func testOneByteAnnouncesAllUntilTheRingIsDrained() throws {
    let rig = try Rig()
    XCTAssertEqual(wakes(rig.wake), 0)
    for _ in 0..<5 { XCTAssertEqual(hr_device_ping(rig.device), 0) }
    XCTAssertEqual(wakes(rig.wake), 1)
    var rows = [hr_completion](repeating: hr_completion(), count: 4)
    XCTAssertEqual(hr_device_poll(rig.device, &rows, 4), 4)
    XCTAssertEqual(rows[0].queue, 0)
    XCTAssertEqual(rows[0].ticket, 0)
    XCTAssertEqual(rows[0].flags, 3)
    XCTAssertEqual(hr_device_ping(rig.device), 0)
    XCTAssertEqual(wakes(rig.wake), 0)
    XCTAssertEqual(hr_device_poll(rig.device, &rows, 4), 2)
    XCTAssertEqual(hr_device_ping(rig.device), 0)
    XCTAssertEqual(wakes(rig.wake), 1)
    XCTAssertEqual(hr_device_poll(rig.device, nil, 0), 0)
    XCTAssertEqual(hr_device_poll(rig.device, &rows, 4), 1)
    XCTAssertEqual(hr_device_poll(rig.device, &rows, 4), 0)
    rig.close()
  }

  func testWaitEndsByARowOrByTime() throws {
    let rig = try Rig()
    defer { rig.close() }
    var row = hr_completion()
    let started = clockMs()
    XCTAssertEqual(hr_device_wait(rig.device, &row, 1, 30), 0)
    XCTAssertGreaterThanOrEqual(clockMs() - started, 29)
    let device = rig.device
    DispatchQueue.global().asyncAfter(deadline: .now() + 0.02) { XCTAssertEqual(hr_device_ping(device), 0) }
    XCTAssertEqual(hr_device_wait(rig.device, &row, 1, 20_000), 1)
    XCTAssertLessThan(clockMs() - started, 10_000)
  }

  func testRowsOutliveTheDeviceAndThenItIsClosed() throws {
    let rig = try Rig()
    let own = dup(rig.wake)
    defer { close(own) }
    let event = try rig.event()
    let (ticket, _) = try rig.submit([request(HR_WAIT, 0, 0, -1, 0, 1)], [event])
    XCTAssertEqual(hr_close(rig.device), 0)
    // The end of the file comes after the last row.
    eventually("the wake descriptor has ended") { wakes(own) == -1 }
    var rows = [hr_completion](repeating: hr_completion(), count: 8)
    XCTAssertEqual(hr_device_poll(rig.device, &rows, 8), 1)
    XCTAssertEqual(rows[0].ticket, ticket)
    XCTAssertLessThan(rows[0].status, 0)
    XCTAssertEqual(hr_device_poll(rig.device, &rows, 8), Status.closed)
    XCTAssertEqual(hr_device_wait(rig.device, &rows, 8, 1000), Status.closed)
    XCTAssertEqual(fcntl(rig.wake, F_GETFD), -1)
  }

  func testAThreadThatWaitsSeesTheClose() throws {
    let rig = try Rig()
    let device = rig.device
    let done = expectation(description: "the wait has ended")
    DispatchQueue.global().async {
      var row = hr_completion()
      XCTAssertEqual(hr_device_wait(device, &row, 1, 60_000), Status.closed)
      done.fulfill()
    }
    usleep(20_000)
    XCTAssertEqual(hr_close(rig.device), 0)
    wait(for: [done], timeout: 20)
  }

  func testTheTextOfAThousandFailuresIsKept() throws {
    let rig = try Rig()
    defer { rig.close() }
    let event = try rig.event()
    XCTAssertEqual(hr_close(event), 0)
    let waits = try rig.event()
    var tickets: [Double] = []
    for _ in 0..<1100 { tickets.append(try rig.submit([request(HR_WAIT, 0, 0, -1, 0, 1)], [waits]).ticket) }
    for ticket in tickets { XCTAssertEqual(hr_queue_cancel(rig.queue, ticket, Status.cancelled), 0) }
    XCTAssertEqual(try rig.failure(tickets[1099]), "ticket 1100 was cancelled")
    XCTAssertEqual(try rig.failure(tickets[76]), "ticket 77 was cancelled")
    expect(Status.invalid) { _ = try rig.failure(tickets[75]) }
  }
}
