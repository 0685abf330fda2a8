#if canImport(CStandIn)
  import CHeadrace
  import CStandIn
  import XCTest

  @testable import HeadraceMetal

  /// A GPU that fails.
  final class ComputeFaultTests: XCTestCase {
    override func tearDown() { setFaults([]) }

    private func rig(retry: Bool) throws -> (Rig, hr_handle, hr_handle) {
      var options = hr_device_options()
      options.flags = retry ? UInt32(HR_OPTION_RETRY_ONCE) : 0
      let rig = try Rig(options)
      return (rig, try rig.kernel(Sources.words, "set"), try rig.buffer(4096))
    }

    private func set(_ pipeline: hr_handle, _ value: UInt32) -> Launch { Launch(pipeline, [0], bytes(value, 100), threads: 100) }

    func testFailedWorkLeavesTheDeviceUsable() throws {
      let (rig, kernel, buffer) = try rig(retry: false)
      defer { rig.close() }
      for (ticket, (code, name)) in [(1, "internal"), (2, "timeout"), (3, "pageFault"), (4, "accessRevoked"), (8, "outOfMemory"), (9, "invalidResource"), (12, "stackOverflow")].enumerated() {
        setFaults([fault(STANDIN_COMMAND_BUFFER, code: Int32(code))])
        let number = Double(2 * ticket + 1)
        XCTAssertEqual(try rig.launch([set(kernel, 7)], [buffer], ticket: number).status, Double(Status.deviceFailed))
        let text = try rig.failure(number)
        XCTAssertTrue(text.contains("MTLCommandBufferErrorDomain \(code) (\(name))"), text)
        XCTAssertEqual(try rig.launch([set(kernel, UInt32(ticket))], [buffer], ticket: number + 1).status, 0)
        XCTAssertEqual(try rig.words(buffer)[3], UInt32(ticket + 3))
      }
    }

    func testRetriesOnceWhereThatIsAskedFor() throws {
      let (rig, kernel, buffer) = try rig(retry: true)
      defer { rig.close() }
      for (index, code) in [1, 2, 3].enumerated() {
        setFaults([fault(STANDIN_COMMAND_BUFFER, code: Int32(code))])
        XCTAssertEqual(try rig.launch([set(kernel, UInt32(code))], [buffer], ticket: Double(index + 1)).status, 0)
        XCTAssertEqual(try rig.words(buffer)[99], UInt32(code + 99))
        XCTAssertEqual(standin_calls(UInt32(STANDIN_COMMAND_BUFFER)), 2)
      }
      setFaults([fault(STANDIN_COMMAND_BUFFER, times: 2, code: 2)])
      XCTAssertEqual(try rig.launch([set(kernel, 1)], [buffer], ticket: 10).status, Double(Status.deviceFailed))
      XCTAssertEqual(standin_calls(UInt32(STANDIN_COMMAND_BUFFER)), 2)
      setFaults([fault(STANDIN_COMMAND_BUFFER, code: 8)])
      XCTAssertEqual(try rig.launch([set(kernel, 1)], [buffer], ticket: 11).status, Double(Status.deviceFailed))
      XCTAssertEqual(standin_calls(UInt32(STANDIN_COMMAND_BUFFER)), 1)
    }

    func testOnlyThePartThatFailedIsRunAgain() throws {
      let (rig, _, buffer) = try rig(retry: true)
      defer { rig.close() }
      let step = try rig.kernel(Sources.words, "step")
      // The third command buffer fails before it has done anything.
      let launches = (0..<GPUQueue.operationsPerBuffer * 2 + 1).map { _ in Launch(step, [0], bytes(1, 1), threads: 1) }
      setFaults([fault(STANDIN_COMMAND_BUFFER, nth: 3, code: 2)])
      XCTAssertEqual(try rig.launch(launches, [buffer], ticket: 1).status, 0)
      XCTAssertEqual(standin_calls(UInt32(STANDIN_COMMAND_BUFFER)), 4)
      XCTAssertEqual(try rig.words(buffer)[0], launches.reduce(UInt32(0)) { value, _ in value &* 3 &+ 1 })
    }

    func testARemovedDeviceIsLost() throws {
      let (rig, kernel, buffer) = try rig(retry: true)
      defer { rig.close() }
      setFaults([fault(STANDIN_COMMAND_BUFFER, code: 11)])
      XCTAssertEqual(try rig.launch([set(kernel, 1)], [buffer], ticket: 1).status, Double(Status.deviceLost))
      expect(Status.deviceLost) { try rig.launch([set(kernel, 1)], [buffer], ticket: 2) }
      expect(Status.deviceLost) { _ = try rig.library(Sources.words) }
    }

    func testAQueueThatCannotBeMadeIsAFailure() throws {
      let (rig, kernel, buffer) = try rig(retry: false)
      defer { rig.close() }
      setFaults([fault(STANDIN_MAKE_QUEUE)].map { var it = $0; it.code = 1; return it })
      expect(Status.deviceFailed) { try rig.launch([set(kernel, 1)], [buffer], ticket: 1) }
      XCTAssertEqual(try rig.launch([set(kernel, 1)], [buffer], ticket: 2).status, 0)
      setFaults([fault(STANDIN_PIPELINE, code: 3)])
      let text = expect(Status.compileFailed) { _ = try rig.kernel(Sources.words, "sum") }
      XCTAssertTrue(text.contains("CompilerError 3"), text)
    }

    func testCancelledWorkIsNotCommittedAndQuietsDown() throws {
      let (rig, _, buffer) = try rig(retry: false)
      defer { rig.close() }
      let step = try rig.kernel(Sources.words, "step")
      // 64 command buffers may be in flight, and each takes a while: the others wait to be made.
      setFaults([fault(STANDIN_COMMAND_BUFFER, times: 1000, delayMs: 5)])
      let launches = (0..<GPUQueue.operationsPerBuffer * 100).map { _ in Launch(step, [0], bytes(1, 1), threads: 1) }
      let requests = launches.indices.map { request(HR_DISPATCH, Double($0)) }
      try rig.submit(requests, [buffer], launches: launches, ticket: 1)
      eventually("the GPU has work") { standin_calls(UInt32(STANDIN_COMMAND_BUFFER)) > 3 }
      XCTAssertEqual(hr_queue_cancel(rig.queue, 1, Status.cancelled), 0)
      XCTAssertEqual(try rig.end(of: 1).status, Double(Status.cancelled))
      XCTAssertEqual(hr_close(buffer), 0)
      _ = try rig.end(of: 1, flags: HR_QUIET)
      XCTAssertLessThan(standin_calls(UInt32(STANDIN_COMMAND_BUFFER)), 100)
    }
  }
#endif
