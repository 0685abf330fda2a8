#if canImport(CStandIn)
  import CHeadrace
  import CStandIn
  import Foundation
  import Metal
  import XCTest

  @testable import HeadraceMetal

  /// GPU work behind streamed reads.
  final class StreamedRunTests: XCTestCase {
    private let folder = Folder()

    override func tearDown() {
      setFaults([])
      disk(bytesPerSecond: 0)
    }

    /// Of devices that are opened later.
    private func disk(bytesPerSecond: UInt64) {
      var config = standin_config()
      config.bytes_per_second = bytesPerSecond
      standin_configure(&config)
    }

    private func calls(_ call: Int) -> Int { Int(standin_calls(UInt32(call))) }

    /// A device, and what a read with a kernel behind it needs: objects are file, target, output, file to write, event.
    private final class Scene {
      let rig: Rig
      let kernel: hr_handle
      let objects: [hr_handle]
      let content: [UInt8]
      let name: String
      let count: Int
      let written: String

      init(_ folder: Folder, _ count: Int, _ change: (inout hr_device_options) -> Void = { _ in }) throws {
        var options = hr_device_options()
        change(&options)
        rig = try Rig(options)
        self.count = count
        content = pattern(count)
        name = UUID().uuidString
        written = folder.path + "/written-" + name
        kernel = try rig.kernel(Sources.words, "move")
        let source = try rig.file(folder.file(name, count), HR_FILE_STREAM)
        try objects = [
          source, rig.buffer(count), rig.buffer(count), rig.file(written, HR_FILE_WRITE), rig.event(),
        ]
      }

      var output: hr_handle { objects[2] }
      var isWritten: Bool { ((try? Data(contentsOf: URL(fileURLWithPath: written)).count) ?? 0) > 0 }

      /// A read, the kernel, and what must not happen after a failure: a write and a signal.
      func submit(_ ticket: Double, parts: Int = 1) throws {
        let size = count / parts
        var requests = (0..<parts).map {
          request(HR_READ, 0, Double($0 * size), 1, Double($0 * size), Double(size))
        }
        requests += [
          request(HR_DISPATCH, 0), request(HR_WRITE, 2, 0, 3, 0, Double(count)), request(HR_SIGNAL, 4, 0, -1, 0, ticket),
        ]
        try rig.submit(requests, objects, launches: [Launch(kernel, [1, 2], threads: count / 4)], ticket: ticket)
      }

      func event() throws -> UInt64 {
        var value: UInt64 = 0
        try call { hr_event_value(objects[4], &value, $0) }
        return value
      }

      /// A kernel alone, to see that the GPU is free.
      func launchAlone(_ ticket: Double) throws -> hr_completion {
        try rig.launch([Launch(kernel, [1, 2], threads: 1)], objects, ticket: ticket)
      }

      func check(_ row: hr_completion, file: StaticString = #filePath, line: UInt = #line) throws {
        XCTAssertEqual(row.status, 0, file: file, line: line)
        XCTAssertEqual(row.bytes_done, Double(2 * count), file: file, line: line)
        XCTAssertTrue(try Array(rig.bytes(output)) == content, "the kernel ran too early", file: file, line: line)
        XCTAssertTrue(try Data(contentsOf: URL(fileURLWithPath: written)) == Data(content), file: file, line: line)
        XCTAssertEqual(try event(), UInt64(row.ticket), file: file, line: line)
      }

      /// The ticket has failed, and nothing behind the kernel was done.
      func checkFailed(_ row: hr_completion, _ status: hr_status, file: StaticString = #filePath, line: UInt = #line) throws {
        XCTAssertEqual(row.status, Double(status), file: file, line: line)
        XCTAssertFalse(isWritten, "written after a failure", file: file, line: line)
        XCTAssertEqual(try event(), 0, file: file, line: line)
      }
    }

    func testTheGPUWaitsForSignalsOfMTLIO() throws {
      disk(bytesPerSecond: 8 << 20)
      let scene = try Scene(folder, 1 << 20)
      defer { scene.rig.close() }
      setFaults([fault(STANDIN_IO_COMMAND_BUFFER, delayMs: 300)])
      try scene.submit(1)
      eventually("the GPU has its commands while the load is under way") { self.calls(STANDIN_COMMAND_BUFFER) == 1 }
      XCTAssertEqual(calls(STANDIN_IO_SIGNAL), 0)
      let row = try scene.rig.end(of: 1)
      try scene.check(row)
      XCTAssertEqual([calls(STANDIN_GPU_WAIT), calls(STANDIN_IO_SIGNAL), calls(STANDIN_COMMAND_BUFFER)], [1, 1, 1])
      // The loads were done long before MTLIO said that its command buffer was over.
      XCTAssertLessThan(row.gpu_end_ms, row.ended_ms - 150)
      XCTAssertGreaterThan(row.gpu_end_ms - row.submitted_ms, 80)
    }

    func testEveryCommandBufferIsWaitedFor() throws {
      disk(bytesPerSecond: 32 << 20)
      let scene = try Scene(folder, 1 << 20) { $0.piece_bytes = 64 << 10; $0.io_max_commands = 3 }
      defer { scene.rig.close() }
      setFaults([])
      for ticket in 1...3 {
        try scene.submit(Double(ticket), parts: 4)
        try scene.check(try scene.rig.end(of: Double(ticket)))
        XCTAssertEqual(calls(STANDIN_GPU_WAIT), 16 * ticket)
        memset(UnsafeMutableRawPointer(try scene.rig.bytes(scene.objects[1]).baseAddress!), 0, scene.count)
      }
    }

    func testManyOrLargeLoadsAndAnOptionLeaveTheOrderToTheCPU() throws {
      // On disks so slow that none of it is over before the last of it is on its way.
      disk(bytesPerSecond: 256 << 10)
      let many = try Scene(folder, 68 << 10) { $0.piece_bytes = 4 << 10 }
      disk(bytesPerSecond: 64 << 20)
      let large = try Scene(folder, 40 << 20)
      let behind = try Scene(folder, 4096) { $0.flags = UInt32(HR_OPTION_GPU_BEHIND) }
      setFaults([])
      for scene in [many, large, behind] {
        try scene.submit(1)
        try scene.check(try scene.rig.end(of: 1))
        scene.rig.close()
      }
      XCTAssertEqual(calls(STANDIN_GPU_WAIT), 0)
    }

    func testWithoutEventsTheCPUKeepsTheOrder() throws {
      let scene = try Scene(folder, 64 << 10)
      defer { scene.rig.close() }
      setFaults([fault(STANDIN_MAKE_EVENT, times: 10, code: 1)])
      try scene.submit(1)
      try scene.check(try scene.rig.end(of: 1))
      XCTAssertEqual(calls(STANDIN_GPU_WAIT), 0)
    }

    func testPhasesAndAKernelFollowOneAnother() throws {
      disk(bytesPerSecond: 16 << 20)
      let scene = try Scene(folder, 512 << 10) { $0.piece_bytes = 128 << 10 }
      defer { scene.rig.close() }
      setFaults([])
      let half = Double(scene.count / 2)
      // The second read lies over the first one's bytes.
      let requests = [
        request(HR_READ, 0, half, 1, 0, half), request(HR_BARRIER), request(HR_READ, 0, 0, 1, 0, Double(scene.count)),
        request(HR_DISPATCH, 0),
      ]
      try scene.rig.submit(requests, scene.objects, launches: [Launch(scene.kernel, [1, 2], threads: scene.count / 4)], ticket: 1)
      XCTAssertEqual(try scene.rig.end(of: 1).status, 0)
      XCTAssertTrue(try Array(scene.rig.bytes(scene.output)) == scene.content)
      XCTAssertEqual([calls(STANDIN_IO_WAIT), calls(STANDIN_GPU_WAIT)], [8, 4])
    }

    func testAFailedLoadIsTheTicketsFailure() throws {
      disk(bytesPerSecond: 4 << 20)
      for nth: UInt32 in [1, 3] {
        let scene = try Scene(folder, 256 << 10) { $0.piece_bytes = 64 << 10 }
        setFaults([fault(STANDIN_IO_COMMAND_BUFFER, nth: nth, code: 5, delayMs: 30)])
        try scene.submit(1)
        let row = try scene.rig.end(of: 1)
        try scene.checkFailed(row, Status.io)
        XCTAssertEqual(Int(row.flags), HR_ENDED | HR_QUIET)
        let text = try scene.rig.failure(1)
        XCTAssertTrue(text.hasPrefix("request 0: loading 65536 bytes"), text)
        // The GPU was let go.
        XCTAssertEqual(try scene.launchAlone(2).status, 0)
        setFaults([])
        try scene.submit(3)
        try scene.check(try scene.rig.end(of: 3))
        scene.rig.close()
      }
    }

    func testAFileThatShrinksUnderTheGPUIsAShortRead() throws {
      disk(bytesPerSecond: 4 << 20)
      let scene = try Scene(folder, 1 << 20)
      defer { scene.rig.close() }
      setFaults([])
      try scene.submit(1)
      eventually("the GPU waits") { self.calls(STANDIN_GPU_WAIT) == 1 }
      folder.truncate(scene.name, to: 1000)
      try scene.checkFailed(try scene.rig.end(of: 1), Status.shortRead)
      XCTAssertEqual(try scene.launchAlone(2).status, 0)
    }

    func testASignalThatIsLeftOutComesFromTheCPU() throws {
      let scene = try Scene(folder, 256 << 10) { $0.piece_bytes = 64 << 10 }
      defer { scene.rig.close() }
      setFaults([fault(STANDIN_IO_SIGNAL, times: 100, code: 1)])
      try scene.submit(1)
      try scene.check(try scene.rig.end(of: 1))
    }

    func testStoppedAtAnyTimeItEndsAndQuietsDown() throws {
      disk(bytesPerSecond: 8 << 20)
      for (delayUs, status) in [(0, Status.cancelled), (500, Status.timedOut), (5000, Status.cancelled), (60_000, Status.timedOut)] {
        let scene = try Scene(folder, 4 << 20) { $0.piece_bytes = 1 << 20 }
        setFaults([])
        try scene.submit(1)
        usleep(UInt32(delayUs))
        if delayUs == 60_000 { XCTAssertEqual(calls(STANDIN_GPU_WAIT), 1) }
        let askedMs = clockMs()
        XCTAssertEqual(hr_queue_cancel(scene.rig.queue, 1, status), 0)
        let row = try scene.rig.end(of: 1)
        if Int(row.flags) & HR_QUIET == 0 { _ = try scene.rig.end(of: 1, flags: HR_QUIET) }
        XCTAssertLessThan(clockMs() - askedMs, 1500)
        try scene.checkFailed(row, status)
        XCTAssertEqual(try scene.launchAlone(2).status, 0)
        scene.rig.close()
      }
    }

    func testAStopFreesTheGPUFromALoadThatHangs() throws {
      disk(bytesPerSecond: 8 << 20)
      let scene = try Scene(folder, 1 << 20)
      defer { scene.rig.close() }
      // Neither ends nor signals for a while, whatever it is asked.
      setFaults([fault(STANDIN_IO_COMMAND_BUFFER, delayMs: 1500), fault(STANDIN_IO_SIGNAL, code: 1)])
      try scene.submit(1)
      eventually("the GPU waits") { self.calls(STANDIN_GPU_WAIT) == 1 }
      let startMs = clockMs()
      XCTAssertEqual(hr_queue_cancel(scene.rig.queue, 1, Status.cancelled), 0)
      try scene.checkFailed(try scene.rig.end(of: 1), Status.cancelled)
      XCTAssertEqual(try scene.launchAlone(2).status, 0)
      XCTAssertLessThan(clockMs() - startMs, 1000)
      // Its memory is in use until the load is over.
      _ = try scene.rig.end(of: 1, flags: HR_QUIET)
      XCTAssertGreaterThan(clockMs() - startMs, 1000)
    }

    func testAFailureOfTheGPUIsToldAfterTheLoads() throws {
      disk(bytesPerSecond: 8 << 20)
      let scene = try Scene(folder, 1 << 20)
      defer { scene.rig.close() }
      setFaults([fault(STANDIN_COMMAND_BUFFER, code: 2)])
      try scene.submit(1)
      let row = try scene.rig.end(of: 1)
      try scene.checkFailed(row, Status.deviceFailed)
      XCTAssertGreaterThan(row.ended_ms - row.submitted_ms, 80)
      try scene.submit(2)
      try scene.check(try scene.rig.end(of: 2))
    }

    func testWorkThatIsRunAgainWaitsAgain() throws {
      disk(bytesPerSecond: 8 << 20)
      let scene = try Scene(folder, 1 << 20) { $0.flags = UInt32(HR_OPTION_RETRY_ONCE) }
      defer { scene.rig.close() }
      setFaults([fault(STANDIN_COMMAND_BUFFER, code: 2)])
      try scene.submit(1)
      try scene.check(try scene.rig.end(of: 1))
      XCTAssertEqual([calls(STANDIN_COMMAND_BUFFER), calls(STANDIN_GPU_WAIT)], [2, 2])
    }

    func testALostDeviceEndsTheWait() throws {
      disk(bytesPerSecond: 4 << 20)
      let scene = try Scene(folder, 1 << 20)
      defer { scene.rig.close() }
      setFaults([fault(STANDIN_COMMAND_BUFFER, code: 11)])
      try scene.submit(1)
      XCTAssertEqual(try scene.rig.end(of: 1).status, Double(Status.deviceLost))
    }

    func testNothingIsLeftOfClosesAtAnyTime() throws {
      let before = Holdings(folder.path)
      disk(bytesPerSecond: 16 << 20)
      for round in 0..<12 {
        let scene = try Scene(folder, 1 << 20) { $0.piece_bytes = 256 << 10 }
        for ticket in 1...3 { try scene.submit(Double(ticket)) }
        usleep(UInt32(round * 8000))
        scene.rig.close()
      }
      eventually("left: \(Holdings(self.folder.path)), before \(before)") { Holdings(self.folder.path).isWithin(before) }
      var live = standin_counts()
      standin_live(&live)
      XCTAssertEqual(live.uncommitted_io_command_buffers, 0)
    }
  }
#endif
