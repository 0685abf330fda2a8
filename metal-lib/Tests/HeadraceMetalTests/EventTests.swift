import CHeadrace
import Foundation
import Metal
import XCTest

@testable import HeadraceMetal

final class EventTests: XCTestCase {
  private func wait(_ value: Double) -> hr_request { request(HR_WAIT, 0, 0, -1, 0, value) }
  private func signal(_ value: Double) -> hr_request { request(HR_SIGNAL, 0, 0, -1, 0, value) }

  private func value(_ event: hr_handle) throws -> UInt64 {
    var value: UInt64 = 0
    try call { hr_event_value(event, &value, $0) }
    return value
  }

  func testValuesOnlyGrow() throws {
    let rig = try Rig()
    defer { rig.close() }
    let event = try rig.event()
    for (signalled, seen) in [(5, 5), (3, 5), (5, 5), (6, 6), (0, 6)] as [(UInt64, UInt64)] {
      try call { hr_event_signal(event, signalled, $0) }
      XCTAssertEqual(try value(event), seen)
    }
    XCTAssertEqual(try rig.run([signal(4), wait(6), signal(9)], [event]).status, 0)
    XCTAssertEqual(try value(event), 9)
  }

  func testThousandsGoBackAndForthWithoutADeepStack() throws {
    let rig = try Rig()
    defer { rig.close() }
    let event = try rig.event()
    var ping: [hr_request] = []
    var pong: [hr_request] = []
    for round in 0..<5000 {
      ping += [wait(Double(2 * round)), signal(Double(2 * round + 1))]
      pong += [wait(Double(2 * round + 1)), signal(Double(2 * round + 2))]
    }
    let first = try rig.submit(pong, [event])
    let second = try rig.submit(ping, [event])
    XCTAssertEqual(second.row?.status ?? 0, 0)
    XCTAssertEqual(try (first.row ?? rig.end(of: first.ticket)).status, 0)
    XCTAssertEqual(try value(event), 10_000)
  }

  func testAChainOfTicketsWakesTheNext() throws {
    let rig = try Rig()
    defer { rig.close() }
    let event = try rig.event()
    for link in 1...20_000 { _ = try rig.submit([wait(Double(link)), signal(Double(link + 1))], [event]) }
    try call { hr_event_signal(event, 1, $0) }
    XCTAssertEqual(try value(event), 20_001)
  }

  func testSignalsFromElsewhereAreSeen() throws {
    let rig = try Rig()
    defer { rig.close() }
    let event = try rig.event()
    let metal = try handles.find(event, as: Event.self).metal
    var tickets: [Double] = []
    for value in [7, 3, 5, 3] { tickets.append(try rig.submit([wait(Double(value))], [event]).ticket) }
    metal.signaledValue = 3
    XCTAssertEqual(try rig.end(of: tickets[1]).status, 0)
    XCTAssertEqual(try rig.end(of: tickets[3]).status, 0)
    metal.signaledValue = 6
    XCTAssertEqual(try rig.end(of: tickets[2]).status, 0)
    try call { hr_event_signal(event, 7, $0) }
    XCTAssertEqual(try rig.end(of: tickets[0]).status, 0)
  }

  func testClosingFailsWhoWaits() throws {
    let rig = try Rig()
    defer { rig.close() }
    let event = try rig.event()
    let (ticket, _) = try rig.submit([wait(1)], [event])
    XCTAssertEqual(hr_close(event), 0)
    let row = try rig.end(of: ticket)
    XCTAssertEqual(row.status, Double(Status.closed))
    XCTAssertEqual(row.flags, 3)
    XCTAssertEqual(try rig.failure(ticket), "the event is closed")
  }

  func testClosingFailsWhoComesLater() throws {
    let rig = try Rig()
    defer { rig.close() }
    for op in [HR_WAIT, HR_SIGNAL] {
      let first = try rig.event()
      let second = try rig.event()
      let (ticket, _) = try rig.submit([wait(1), request(op, 1, 0, -1, 0, 1)], [first, second])
      XCTAssertEqual(hr_close(second), 0)
      try call { hr_event_signal(first, 1, $0) }
      XCTAssertEqual(try rig.end(of: ticket).status, Double(Status.closed))
    }
  }

  func testACancelledWaitIsForgotten() throws {
    let rig = try Rig()
    defer { rig.close() }
    let event = try rig.event()
    for round in 1...2000 {
      let (ticket, _) = try rig.submit([wait(Double(10_000 + round))], [event])
      XCTAssertEqual(hr_queue_cancel(rig.queue, ticket, Status.cancelled), 0)
      XCTAssertEqual(try rig.end(of: ticket).flags, 3)
    }
    try call { hr_event_signal(event, 20_000, $0) }
    var row = hr_completion()
    XCTAssertEqual(hr_device_poll(rig.device, &row, 1), 0)
  }

  func testWaitersComeInOrder() {
    final class Nobody: Waiter {
      func wake(token: Int, failure: Failure?, ready: inout ReadyList) {}
    }
    let nobody = Nobody()
    var heap = WaiterHeap()
    var expected: [(UInt64, Int)] = []
    for token in 0..<500 {
      let value = UInt64.random(in: 0..<50)
      heap.insert(value: value, waiter: nobody, token: token)
      expected.append((value, token))
    }
    for token in stride(from: 0, to: 500, by: 3) { heap.forget(nobody, token: token) }
    heap.forget(nobody, token: 3)
    expected = expected.filter { $0.1 % 3 != 0 }.sorted { $0 < $1 }
    let low = heap.removeReached(20)
    XCTAssertEqual(low.map(\.token), expected.filter { $0.0 <= 20 }.map(\.1))
    XCTAssertEqual(heap.removeAll().map(\.token), expected.filter { $0.0 > 20 }.map(\.1))
    XCTAssertNil(heap.lowest)
  }
}
