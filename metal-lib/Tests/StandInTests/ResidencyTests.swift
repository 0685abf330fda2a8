import CStandIn
import Foundation
import XCTest

@testable import Metal

final class ResidencySetTests: StandInTestCase {
  private func makeSet(_ device: any MTLDevice) throws -> any MTLResidencySet {
    try device.makeResidencySet(descriptor: MTLResidencySetDescriptor())
  }

  /// Something must have run, or the memory would be kept.
  private func runOnce(_ device: any MTLDevice) throws {
    let commands = try XCTUnwrap(device.makeCommandQueue()?.makeCommandBuffer())
    commands.commit()
    commands.waitUntilCompleted()
  }

  func testChangesTakeCommit() throws {
    let device = try makeDevice()
    try runOnce(device)
    let set = try makeSet(device)
    let (first, second) = (try XCTUnwrap(device.makeBuffer(length: 4)), try XCTUnwrap(device.makeBuffer(length: 20000)))
    set.addAllocation(first)
    XCTAssertTrue(set.containsAllocation(first))
    XCTAssertEqual(set.allocatedSize, 0)
    set.commit()
    XCTAssertEqual(set.allocatedSize, 16384)
    XCTAssertEqual(liveCounts().resident_bytes, 0)
    set.requestResidency()
    XCTAssertEqual(liveCounts().resident_bytes, 16384)
    set.addAllocations([first, second])
    XCTAssertEqual(liveCounts().resident_bytes, 16384)
    set.commit()
    XCTAssertEqual(set.allocationCount, 2, "once each")
    XCTAssertEqual(liveCounts().resident_bytes, 16384 + 32768)
    set.removeAllocation(first)
    set.commit()
    XCTAssertEqual(liveCounts().resident_bytes, 32768)
    set.endResidency()
    XCTAssertEqual(liveCounts().resident_bytes, 0)
    set.removeAllAllocations()
    set.commit()
    XCTAssertEqual(set.allocatedSize, 0)
  }

  func testAPartStandsForItsHeap() throws {
    let device = try makeDevice()
    let descriptor = MTLHeapDescriptor()
    descriptor.size = 65536
    let heap = try XCTUnwrap(device.makeHeap(descriptor: descriptor))
    let set = try makeSet(device)
    for _ in 0..<2 { set.addAllocation(try XCTUnwrap(heap.makeBuffer(length: 4, options: .storageModePrivate))) }
    set.commit()
    XCTAssertEqual(set.allocatedSize, 65536)
  }

  func testMemoryIsKeptWhereNothingRan() throws {
    let device = try makeDevice()
    let before = liveCounts().resident_bytes
    let set = try makeSet(device)
    set.addAllocation(try XCTUnwrap(device.makeBuffer(length: 4)))
    set.commit()
    set.requestResidency()
    set.endResidency()
    set.removeAllAllocations()
    set.commit()
    XCTAssertEqual(liveCounts().resident_bytes, before + 16384)
    try runOnce(device)
    set.endResidency()
    XCTAssertEqual(liveCounts().resident_bytes, before)
  }

  func testAQueueTakes32() throws {
    let device = try makeDevice()
    let queue = try XCTUnwrap(device.makeCommandQueue())
    let sets = try (0..<32).map { _ in try makeSet(device) }
    queue.addResidencySets(sets)
    queue.addResidencySet(sets[3])
    queue.removeResidencySet(sets[3])
    queue.addResidencySet(sets[3])
    queue.removeResidencySets(sets)
  }

  func testFaultThrows() throws {
    let device = try makeDevice()
    fault(STANDIN_RESIDENCY, code: 7)
    XCTAssertThrowsError(try makeSet(device)) { XCTAssertEqual(($0 as NSError).code, 7) }
  }
}

final class DeviceTests: StandInTestCase {
  func testPlaysTheMachineThatIsAskedFor() throws {
    let device = try makeDevice()
    XCTAssertTrue(device.hasUnifiedMemory)
    XCTAssertTrue(device.supportsFamily(.apple9))
    XCTAssertEqual(device.maxBufferLength, 16 << 30)
    configure {
      $0.not_unified = 1
      $0.num_devices = 3
      $0.working_set = 1 << 30
    }
    XCTAssertTrue(device.hasUnifiedMemory, "later devices only")
    let others = MTLCopyAllDevices()
    XCTAssertEqual(Set(others.map { $0.registryID }).count, 3)
    XCTAssertFalse(others[2].hasUnifiedMemory)
    XCTAssertFalse(others[2].supportsFamily(.apple7))
    XCTAssertTrue(others[2].supportsFamily(.metal3))
    XCTAssertEqual(others[2].recommendedMaxWorkingSetSize, 1 << 30)
    configure { $0.num_devices = STANDIN_NO_DEVICES }
    XCTAssertNil(MTLCreateSystemDefaultDevice())
  }

  func testFaultsAreCountedFromWhenTheyWereSaid() {
    let faults = [
      standin_fault(call: 0, nth: 2, times: 2, code: 5, limit: 10, delay_us: 0),
      standin_fault(call: 1, nth: 1, times: 1, code: 0, limit: -1, delay_us: 3),
    ]
    standin_set_faults(faults, 2)
    let met = (0..<4).map { _ in standin_meet(0) }
    XCTAssertEqual(met.map { $0.met }, [0, 1, 1, 0])
    XCTAssertEqual(met.map { $0.code }, [0, 5, 5, 0])
    XCTAssertEqual(met.map { $0.limit }, [-1, 10, 10, -1])
    XCTAssertEqual(standin_meet(1).delay_us, 3)
    XCTAssertEqual([standin_calls(0), standin_calls(1), standin_calls(2)], [4, 1, 0])
    standin_set_faults(nil, 0)
    XCTAssertEqual(standin_calls(0), 0)
    XCTAssertEqual(standin_meet(99).met, 0)
  }
}
