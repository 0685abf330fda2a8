import CHeadrace
import Foundation
import XCTest

@testable import HeadraceMetal

/// Threads against each other. HEADRACE_STRESS multiplies the rounds.
final class StressTests: XCTestCase {
  let folder = Folder()
  private var rounds: Int { 20 * (Int(ProcessInfo.processInfo.environment["HEADRACE_STRESS"] ?? "") ?? 1) }

  /// Statuses that a call may meet when all is being closed.
  private let allowed: Set<hr_status> = [Status.ok, 1, Status.closed]

  func testFourThreadsSubmitWhileAnotherCloses() throws {
    let path = try folder.file("stress", 1 << 20)
    for round in 0..<rounds { try submitAndClose(path, round) }
    eventually("all lanes have ended") { Holdings(folder.path).threads == 0 && Holdings(folder.path).mappings == 0 }
  }

  private func submitAndClose(_ path: String, _ round: Int) throws {
    var options = hr_device_options()
    options.piece_bytes = 16384
    options.inline_copy_bytes = 4096
    let rig = try Rig(options)
    let file = try rig.file(path)
    let objects = [
      file, try rig.map(file, 3, 500_000), try rig.buffer(1 << 20), try rig.buffer(1 << 20), try rig.event(),
      try rig.buffer(1 << 20, HR_PRIVATE),
    ]
    let taken = Locked(0)
    let ended = Locked(0)
    let finished = Locked(false)
    let group = DispatchGroup()
    for thread in 0..<4 {
      DispatchQueue.global().async(group: group) { [allowed] in
        for number in 0..<60 {
          let ticket = Double(thread * 1000 + number + 1)
          let requests: [hr_request] =
            switch number % 6 {
            case 0: [request(HR_READ, 0, 5, 2, 0, 100_000), request(HR_COPY, 1, 0, 3, 0, 200_000)]
            case 1: [request(HR_COPY, 2, 0, 3, 600_000, 1000)]
            case 2: [request(HR_WAIT, 4, 0, -1, 0, Double(number)), request(HR_READ, 0, 0, 3, 0, 30_000)]
            case 3: [request(HR_SIGNAL, 4, 0, -1, 0, Double(number))]
            case 4: [request(HR_COPY, 2, 4, 5, 0, 64_000), request(HR_BARRIER), request(HR_COPY, 5, 0, 3, 0, 64_000)]
            default: [request(HR_WAIT, 4, 0, -1, 0, 1e9)]
            }
          var row = hr_completion()
          var submission = hr_submission()
          let status = requests.withUnsafeBufferPointer { requests in
            objects.withUnsafeBufferPointer { objects in
              submission.requests = requests.baseAddress
              submission.request_count = UInt32(requests.count)
              submission.objects = objects.baseAddress
              submission.object_count = UInt32(objects.count)
              return hr_queue_submit(rig.queue, &submission, ticket, &row, nil)
            }
          }
          XCTAssert(allowed.contains(status), "\(status)")
          if status == 0 { taken.withLock { $0 += 1 } }
          if number % 7 == 0 { _ = hr_queue_cancel(rig.queue, ticket, Status.cancelled) }
        }
      }
    }
    DispatchQueue.global().async(group: group) {
      usleep(UInt32.random(in: 0..<8000))
      for handle in objects.shuffled() where Bool.random() { _ = hr_close(handle) }
      if round % 3 == 0 { _ = hr_close(rig.queue) }
      usleep(UInt32.random(in: 0..<2000))
      XCTAssertEqual(hr_close(rig.device), 0)
    }
    let polling = DispatchGroup()
    DispatchQueue.global().async(group: polling) {
      var rows = [hr_completion](repeating: hr_completion(), count: 16)
      while true {
        let count = hr_device_wait(rig.device, &rows, 16, 20_000)
        if count <= 0 {
          XCTAssertEqual(count, Status.closed)
          break
        }
        ended.withLock { ended in ended += rows[..<Int(count)].filter { Int($0.flags) & HR_QUIET != 0 }.count }
      }
      finished.withLock { $0 = true }
    }
    group.wait()
    polling.wait()
    XCTAssert(finished.withLock { $0 })
    XCTAssertEqual(ended.withLock { $0 }, taken.withLock { $0 }, "each ticket that was taken ends once")
  }

  func testAHundredThousandSubmissions() throws {
    let rig = try Rig()
    defer { rig.close() }
    let total = 5000 * rounds
    let file = try rig.file(try folder.file("singles", 10_000))
    let buffer = try rig.buffer(10_000)
    let reading = DispatchGroup()
    let bytes = Locked(0.0)
    DispatchQueue.global().async(group: reading) {
      var rows = [hr_completion](repeating: hr_completion(), count: 512)
      var seen = 0
      while seen < total {
        let count = Int(hr_device_wait(rig.device, &rows, 512, 20_000))
        guard count > 0 else { return XCTFail("\(seen) of \(total) rows came") }
        seen += count
        let moved = rows[..<count].reduce(0) { $0 + $1.bytes_done }
        bytes.withLock { $0 += moved }
      }
    }
    for ticket in 1...total {
      let read = request(HR_READ, 0, Double(ticket % 9000), 1, Double(ticket % 9000), 16)
      XCTAssertEqual(try rig.submit([read], [file, buffer], queue: rig.queue, ticket: Double(ticket), nil), 0)
    }
    reading.wait()
    XCTAssertEqual(bytes.withLock { $0 }, Double(16 * total))
  }
}
