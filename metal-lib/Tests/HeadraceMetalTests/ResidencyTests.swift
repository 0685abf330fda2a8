#if canImport(CStandIn)
  import CHeadrace
  import CStandIn
  import Foundation
  import Metal
  import XCTest

  @testable import HeadraceMetal

  /// What is resident when, as the stand-in counts it.
  final class ResidencyTests: XCTestCase {
    private var before: UInt64 = 0

    override func setUp() {
      setFaults([])
      before = counts().resident_bytes
    }

    override func tearDown() { setFaults([]) }

    private func counts() -> standin_counts {
      var counts = standin_counts()
      standin_live(&counts)
      return counts
    }

    private func resident() -> Int { Int(counts().resident_bytes) - Int(before) }

    private func make(_ keepAliveMs: Int = 60_000) throws -> (Residency, StandInResidencySet, any MTLDevice) {
      let metal = try XCTUnwrap(MTLCreateSystemDefaultDevice())
      let residency = Residency(metal: metal, enabled: true, keepAliveMs: keepAliveMs)
      let set = try XCTUnwrap((residency.keeper as? ResidentSet)?.set as? StandInResidencySet)
      return (residency, set, metal)
    }

    private func runSomething(_ metal: any MTLDevice) throws {
      let commands = try XCTUnwrap(metal.makeCommandQueue()?.makeCommandBuffer())
      commands.commit()
      commands.waitUntilCompleted()
    }

    func testBuffersAreResidentWhileTheyAreAdded() throws {
      let (residency, _, metal) = try make()
      try runSomething(metal)
      let first = try XCTUnwrap(metal.makeBuffer(length: 16384)), second = try XCTUnwrap(metal.makeBuffer(length: 32768))
      residency.add(first)
      residency.add(second)
      residency.add(first)
      eventually("both") { resident() == 3 * 16384 }
      residency.remove(first)
      usleep(20_000)
      XCTAssertEqual(resident(), 3 * 16384, "it was added twice")
      residency.remove(first)
      eventually("the second alone") { resident() == 2 * 16384 }
      residency.close()
      XCTAssertEqual(resident(), 0)
    }

    func testAPartStandsForItsHeap() throws {
      let (residency, set, metal) = try make()
      try runSomething(metal)
      let descriptor = MTLHeapDescriptor()
      descriptor.size = 4 * 16384
      descriptor.storageMode = .shared
      let heap = try XCTUnwrap(metal.makeHeap(descriptor: descriptor))
      let parts = try (0..<2).map { _ in try XCTUnwrap(heap.makeBuffer(length: 16384)) }
      parts.forEach { residency.add($0) }
      eventually("the heap") { resident() == 4 * 16384 }
      residency.remove(parts[0])
      usleep(20_000)
      XCTAssertEqual(resident(), 4 * 16384)
      residency.remove(parts[1])
      eventually("nothing") { resident() == 0 }
      residency.close()
      XCTAssertEqual(set.allocationCount, 0)
    }

    func testAddedBuffersEndAfterRemoval() throws {
      let (residency, _, metal) = try make()
      try runSomething(metal)
      let live = counts().buffers
      do {
        let buffer = try XCTUnwrap(metal.makeBuffer(length: 16384))
        residency.add(buffer)
        residency.remove(buffer)
      }
      eventually("the buffer ends") { counts().buffers == live }
      residency.close()
    }

    func testItIsAskedForAgainOnlyAfterGPUWorkAndForAWhile() throws {
      let (residency, set, metal) = try make(1200)
      try runSomething(metal)
      residency.add(try XCTUnwrap(metal.makeBuffer(length: 16384)))
      eventually("asked for once") { set.requests == 1 }
      usleep(700_000)
      XCTAssertEqual(set.requests, 1, "no GPU work, no timer")
      residency.used()
      residency.used()
      eventually("at once") { set.requests == 2 }
      eventually("and again") { set.requests >= 4 }
      XCTAssertEqual(resident(), 16384)
      eventually("and then not any more") { resident() == 0 }
      let asked = set.requests
      XCTAssertLessThanOrEqual(asked, 5, "every 500 ms for 1200")
      residency.add(try XCTUnwrap(metal.makeBuffer(length: 16384)))
      usleep(700_000)
      XCTAssertEqual(set.requests, asked, "asleep")
      residency.used()
      eventually("awake again") { resident() == 2 * 16384 }
      residency.close()
      XCTAssertEqual(resident(), 0)
      let last = set.requests
      usleep(700_000)
      XCTAssertEqual(set.requests, last, "closed")
    }

    func testClosingGivesTheMemoryBackWithoutAnyGPUWork() throws {
      let (residency, _, metal) = try make()
      residency.add(try XCTUnwrap(metal.makeBuffer(length: 16384)))
      eventually("resident") { resident() == 16384 }
      residency.close()
      XCTAssertEqual(resident(), 0)
      XCTAssertEqual(standin_calls(UInt32(STANDIN_COMMAND_BUFFER)), 1, "the work that the system wants to see")
    }

    func testNothingIsLeftOfADevice() throws {
      let sets = counts().residency_sets, queues = counts().queues
      let rig = try Rig()
      let (shared, hidden) = (try rig.buffer(16384), try rig.buffer(16384, HR_PRIVATE))
      eventually("own memory is resident") { resident() == 2 * 16384 }
      XCTAssertEqual(try rig.run([request(HR_COPY, 0, 0, 1, 0, 16384)], [shared, hidden]).status, 0)
      XCTAssertEqual(counts().residency_sets, sets + 1)
      rig.close()
      eventually("nothing is resident") { resident() == 0 }
      eventually("the set ends") { counts().residency_sets == sets && counts().queues == queues }
    }

    func testWithoutSetsAllGoesOn() throws {
      for flags in [UInt32(HR_OPTION_NO_RESIDENCY), 0] {
        if flags == 0 { setFaults([fault(STANDIN_RESIDENCY, code: 1)]) }
        var options = hr_device_options()
        options.flags = flags
        let rig = try Rig(options)
        var info = hr_device_info()
        try call { hr_device_info_get(rig.device, &info, $0) }
        XCTAssertEqual(info.flags & UInt32(HR_DEVICE_RESIDENCY_SETS), 0)
        let (shared, hidden) = (try rig.buffer(64), try rig.buffer(64, HR_PRIVATE))
        XCTAssertEqual(try rig.run([request(HR_COPY, 0, 0, 1, 0, 64)], [shared, hidden]).status, 0)
        XCTAssertEqual(resident(), 0)
        rig.close()
      }
    }

    func testManyThreadsChangeIt() throws {
      let (residency, set, metal) = try make()
      try runSomething(metal)
      let queue = try XCTUnwrap(metal.makeCommandQueue())
      let work = Unchecked((residency, metal, queue))
      DispatchQueue.concurrentPerform(iterations: 8) { _ in
        let (residency, metal, queue) = work.value
        for _ in 0..<100 {
          guard let buffer = metal.makeBuffer(length: 16384) else { return XCTFail("no buffer") }
          residency.add(buffer)
          residency.attach(to: queue)
          residency.used()
          residency.detach(from: queue)
          residency.remove(buffer)
        }
      }
      eventually("nothing is resident") { resident() == 0 }
      residency.close()
      XCTAssertEqual(set.allocationCount, 0)
      // After closing nothing has an effect, and nothing fails.
      residency.add(try XCTUnwrap(metal.makeBuffer(length: 4)))
      residency.attach(to: queue)
      residency.used()
      residency.close()
      usleep(20_000)
      XCTAssertEqual(resident(), 0)
    }
  }
#endif
