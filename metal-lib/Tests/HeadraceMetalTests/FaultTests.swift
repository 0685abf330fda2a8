#if canImport(CStandIn)
  import CHeadrace
  import CStandIn
  import Foundation
  import XCTest

  @testable import HeadraceMetal

  /// Disks and devices that fail.
  final class FaultTests: XCTestCase {
    let folder = Folder()

    override func tearDown() { setFaults([]) }

    private func rig(pieceBytes: UInt64 = 0, lanes: UInt32 = 0) throws -> Rig {
      var options = hr_device_options()
      options.piece_bytes = pieceBytes
      options.lanes = lanes
      return try Rig(options)
    }

    func testInterruptedAndShortReadsAreCarriedOnWith() throws {
      let rig = try rig()
      defer { rig.close() }
      let file = try rig.file(try folder.file("a", 50_000))
      let buffer = try rig.buffer(50_000)
      setFaults([
        fault(STANDIN_PREAD, nth: 1, times: 3, code: EINTR), fault(STANDIN_PREAD, nth: 4, times: 5, limit: 700),
      ])
      let row = try rig.run([request(HR_READ, 0, 0, 1, 0, 50_000)], [file, buffer])
      XCTAssertEqual(row.status, 0)
      XCTAssertEqual(row.bytes_done, 50_000)
      XCTAssert(Array(try rig.bytes(buffer)) == pattern(50_000))
      XCTAssertEqual(standin_calls(UInt32(STANDIN_PREAD)), 9)
      var bytes = [UInt8](repeating: 0, count: 100)
      var done: UInt64 = 0
      setFaults([fault(STANDIN_PREAD, code: EINTR), fault(STANDIN_PREAD, nth: 2, times: 9, limit: 30)])
      try call { hr_file_read(file, 5, 100, &bytes, &done, $0) }
      XCTAssertEqual(done, 100)
      XCTAssertEqual(bytes, Array(pattern(50_000)[5..<105]))
    }

    func testInterruptedAndShortWritesAreCarriedOnWith() throws {
      let rig = try rig()
      defer { rig.close() }
      let file = try rig.file(folder.path + "/b", HR_FILE_WRITE)
      let buffer = try rig.buffer(50_000)
      _ = try rig.bytes(buffer).update(fromContentsOf: pattern(50_000))
      setFaults([
        fault(STANDIN_PWRITE, times: 2, code: EINTR), fault(STANDIN_PWRITE, nth: 3, times: 5, limit: 900),
        fault(STANDIN_SYNC, code: EINTR),
      ])
      let row = try rig.run([request(HR_WRITE, 1, 0, 0, 0, 50_000), request(HR_BARRIER), request(HR_SYNC, 0)], [file, buffer])
      XCTAssertEqual(row.status, 0)
      XCTAssertEqual(try Data(contentsOf: URL(fileURLWithPath: folder.path + "/b")), Data(pattern(50_000)))
    }

    func testErrorsNameRequestRangeAndCause() throws {
      let rig = try rig(pieceBytes: 4096, lanes: 1)
      defer { rig.close() }
      let file = try rig.file(folder.path + "/c", HR_FILE_WRITE)
      let buffer = try rig.buffer(50_000)
      let write = request(HR_WRITE, 1, 0, 0, 100, 20_000)
      XCTAssertEqual(try rig.run([write], [file, buffer]).status, 0)
      let read = request(HR_READ, 0, 100, 1, 0, 20_000)
      let cases: [(standin_fault, hr_request, hr_status, Int32, String)] = [
        (fault(STANDIN_PREAD, nth: 2, code: EIO), read, Status.io, EIO,
          "request 1: reading bytes [100, 20100), at byte 4196: EIO"),
        (fault(STANDIN_PREAD, code: ENOMEM), read, Status.outOfMemory, ENOMEM,
          "request 1: reading bytes [100, 20100), at byte 100: ENOMEM"),
        (fault(STANDIN_PWRITE, nth: 1, times: 9, code: ENOSPC), write, Status.io, ENOSPC,
          "request 1: writing bytes [100, 20100), at byte 100: ENOSPC"),
        (fault(STANDIN_PWRITE, nth: 1, times: 9, limit: 0), write, Status.io, 0,
          "request 1: writing bytes [100, 20100): the system took 0 bytes at 100"),
        (fault(STANDIN_SYNC, code: EIO), request(HR_SYNC, 0), Status.io, EIO,
          "request 1: making written data durable: EIO"),
      ]
      for (fault, request, status, code, text) in cases {
        setFaults([fault])
        let row = try rig.run([HeadraceMetalTests.request(HR_BARRIER), request], [file, buffer])
        XCTAssertEqual(row.status, Double(status), text)
        XCTAssertEqual(row.os_errno, Double(code), text)
        XCTAssertEqual(row.flags, 3)
        // Any of the writing lanes may have been the first.
        let found = try rig.failure(row.ticket)
        if request.op == Double(HR_WRITE) {
          XCTAssert(found.hasPrefix(text.prefix(40)), found)
        } else {
          XCTAssertEqual(found, text)
        }
        setFaults([])
        XCTAssertEqual(try rig.run([request], [file, buffer]).status, 0)
      }
    }

    func testTheFirstFailureWinsAndStopsTheRest() throws {
      let rig = try rig(pieceBytes: 4096, lanes: 1)
      defer { rig.close() }
      let file = try rig.file(try folder.file("d", 1 << 20))
      let buffer = try rig.buffer(1 << 20)
      setFaults([fault(STANDIN_PREAD, nth: 3, code: EIO), fault(STANDIN_PREAD, nth: 4, times: 999, code: ENXIO)])
      let row = try rig.run([request(HR_READ, 0, 0, 1, 0, Double(1 << 20))], [file, buffer])
      XCTAssertEqual(row.os_errno, Double(EIO))
      XCTAssertEqual(standin_calls(UInt32(STANDIN_PREAD)), 3)
    }

    func testAHangingDiskDoesNotHoldUpACancel() throws {
      let rig = try rig(lanes: 1)
      defer { rig.close() }
      let file = try rig.file(try folder.file("e", 1000))
      let buffer = try rig.buffer(1000)
      setFaults([fault(STANDIN_PREAD, delayMs: 300)])
      let started = clockMs()
      let (first, _) = try rig.submit([request(HR_READ, 0, 0, 1, 0, 1000)], [file, buffer])
      let (second, _) = try rig.submit([request(HR_READ, 0, 0, 1, 0, 1000)], [file, buffer])
      eventually("the lane is at it") { standin_calls(UInt32(STANDIN_PREAD)) == 1 }
      for ticket in [first, second] { XCTAssertEqual(hr_queue_cancel(rig.queue, ticket, Status.timedOut), 0) }
      // What had not started is quiet at once; what the disk holds later.
      let skipped = try rig.end(of: second)
      XCTAssertEqual(skipped.status, Double(Status.timedOut))
      let ended = try rig.end(of: first)
      XCTAssertEqual(ended.flags, Double(HR_ENDED))
      XCTAssertLessThan(clockMs() - started, 250)
      let quiet = try rig.end(of: first, flags: HR_QUIET)
      XCTAssertEqual(quiet.flags, Double(HR_QUIET))
      XCTAssertEqual(quiet.status, Double(Status.timedOut))
      XCTAssertGreaterThan(clockMs() - started, 290)
      XCTAssertEqual(standin_calls(UInt32(STANDIN_PREAD)), 1)
    }

    func testTheDeviceRefuses() throws {
      let rig = try rig()
      defer { rig.close() }
      setFaults([fault(STANDIN_MAKE_EVENT, code: 1)])
      expect(Status.deviceFailed) { _ = try rig.event() }
      setFaults([fault(STANDIN_MAKE_BUFFER, code: 1)])
      expect(Status.outOfMemory) { _ = try rig.buffer(100) }
      setFaults([fault(STANDIN_MMAP, code: ENOMEM)])
      expect(Status.outOfMemory) { _ = try rig.buffer(100) }
      setFaults([fault(STANDIN_MAKE_BUFFER, code: 1)])
      expect(Status.outOfMemory) { _ = try rig.buffer(100, HR_PRIVATE) }
      setFaults([])
      let file = try rig.file(try folder.file("f", 10))
      setFaults([fault(STANDIN_FSTAT, code: EIO)])
      var length: UInt64 = 0
      let text = expect(Status.io) { try call { hr_file_length(file, &length, $0) } }
      XCTAssertEqual(text, "finding the length: EIO")
    }

    func testPrivateMemoryThatCouldNotBeZeroedFailsItsUsers() throws {
      let rig = try rig()
      defer { rig.close() }
      setFaults([fault(STANDIN_COMMAND_BUFFER, code: 1)])
      let hidden = try rig.buffer(1000, HR_PRIVATE)
      let shown = try rig.buffer(1000)
      let text = try rig.fail(Status.deviceFailed, [request(HR_COPY, 0, 0, 1, 0, 1000)], [hidden, shown])
      XCTAssert(text.contains("zeroing"), text)
    }
  }
#endif
