import CHeadrace
import Foundation
import XCTest

@testable import HeadraceMetal

#if canImport(CStandIn)
  import CStandIn
#endif

/// Heaps and address tables, through the exported functions.
final class MemoryTests: XCTestCase {
  private var rig: Rig!

  override func setUpWithError() throws { rig = try Rig() }

  override func tearDown() {
    rig.close()
    #if canImport(CStandIn)
      setFaults([])
    #endif
  }

  private func makeHeap(_ byteLength: Int, _ storage: Int = HR_SHARED) throws -> hr_handle {
    var heap: hr_handle = 0
    try call { hr_heap_create(rig.device, UInt64(byteLength), UInt32(storage), &heap, $0) }
    return heap
  }

  private func makePart(_ heap: hr_handle, _ byteLength: Int, _ storage: Int = HR_SHARED) throws -> hr_handle {
    var buffer: hr_handle = 0
    try call { hr_buffer_create(heap, UInt64(byteLength), UInt32(storage), &buffer, $0) }
    return buffer
  }

  private func makeTable(_ buffers: [hr_handle], _ offsets: [Double]) throws -> hr_handle {
    var table: hr_handle = 0
    try call { hr_address_table_create(rig.device, buffers, offsets, UInt32(buffers.count), &table, $0) }
    return table
  }

  // MARK: Heaps

  func testPartsAreZeroedEachTime() throws {
    let heap = try makeHeap(1 << 20)
    for round in 0..<3 {
      let buffers = try (0..<4).map { _ in try makePart(heap, 100_001) }
      for buffer in buffers {
        XCTAssertEqual(try rig.info(buffer).byte_length, 100_001)
        XCTAssertTrue(try rig.bytes(buffer).allSatisfy { $0 == 0 }, "round \(round)")
        try rig.bytes(buffer).update(repeating: 0xee)
      }
      for buffer in buffers { XCTAssertEqual(hr_close(buffer), 0) }
    }
  }

  func testPrivatePartsAreZeroedBeforeTheyAreUsed() throws {
    let heap = try makeHeap(1 << 20, HR_PRIVATE)
    let shared = try rig.buffer(5000)
    for _ in 0..<3 {
      let hidden = try makePart(heap, 4999, HR_PRIVATE)
      XCTAssertEqual(try rig.info(hidden).host_address, 0)
      try rig.bytes(shared).update(repeating: 0xee)
      let row = try rig.run([request(HR_COPY, 0, 0, 1, 0, 4999)], [hidden, shared])
      XCTAssertEqual(row.status, 0)
      XCTAssertTrue(try rig.bytes(shared).prefix(4999).allSatisfy { $0 == 0 })
      XCTAssertEqual(try rig.bytes(shared)[4999], 0xee)
      try rig.bytes(shared).update(repeating: 0xdd)
      try rig.run([request(HR_COPY, 0, 0, 1, 0, 4996)], [shared, hidden])
      XCTAssertEqual(hr_close(hidden), 0)
    }
  }

  func testAFullHeapSaysSo() throws {
    let heap = try makeHeap(65536)
    let first = try makePart(heap, 40000)
    let text = expect(Status.outOfMemory) { _ = try makePart(heap, 40000) }
    XCTAssertTrue(text.contains("40000"), text)
    XCTAssertTrue(text.contains("65536"), text)
    XCTAssertEqual(hr_close(first), 0)
    XCTAssertNoThrow(try makePart(heap, 40000))
    expect(Status.outOfMemory) { _ = try makePart(heap, .max >> 12) }
  }

  func testPartsOutliveTheHeapsHandle() throws {
    let heap = try makeHeap(65536)
    let buffer = try makePart(heap, 1000)
    XCTAssertEqual(hr_close(heap), 0)
    try rig.bytes(buffer).update(repeating: 7)
    XCTAssertTrue(try rig.bytes(buffer).allSatisfy { $0 == 7 })
    expect(Status.closed) { _ = try makePart(heap, 1) }
  }

  func testHeapsOfWrongArguments() throws {
    expect(Status.outOfRange) { _ = try makeHeap(0) }
    expect(Status.outOfRange) { _ = try makeHeap(1 << 52) }
    expect(Status.invalid) { _ = try makeHeap(4096, 2) }
    XCTAssertEqual(hr_heap_create(rig.device, 4096, 0, nil, nil), Status.invalid)
    let text = expect(Status.invalid) { _ = try makePart(try makeHeap(65536), 16, HR_PRIVATE) }
    XCTAssertTrue(text.contains("private") && text.contains("shared"), text)
    expect(Status.invalid) { _ = try makePart(try rig.buffer(16), 16) }
  }

  // MARK: Address tables

  func testATableHoldsAddresses() throws {
    let (first, second) = (try rig.buffer(100), try rig.buffer(200))
    let table = try makeTable([first, second, first], [0, 64, 99])
    XCTAssertEqual(try rig.info(table).byte_length, 24)
    let addresses = try rig.bytes(table).withMemoryRebound(to: UInt64.self) { Array($0) }
    let (a, b) = (try rig.info(first).gpu_address, try rig.info(second).gpu_address)
    XCTAssertEqual(addresses, [a, b + 64, a + 99])
  }

  func testATableOfAMappingPointsIntoItsPages() throws {
    let folder = Folder()
    let file = try rig.file(try folder.file("a", 50000))
    let mapping = try rig.map(file, 20001, 1000)
    let table = try makeTable([mapping], [10])
    let address = try rig.bytes(table).withMemoryRebound(to: UInt64.self) { $0[0] }
    XCTAssertEqual(address, try rig.info(mapping).gpu_address + 10)
    folder.truncate("a", to: 100)
    XCTAssertEqual(hr_buffer_check(table, nil), Status.fileChanged, "a table answers for its buffers")
  }

  #if canImport(CStandIn)
    func testATableKeepsItsBuffers() throws {
      func live() -> UInt64 {
        var counts = standin_counts()
        standin_live(&counts)
        return counts.buffers
      }
      let before = live()
      let buffer = try rig.buffer(100)
      let table = try makeTable([buffer], [0])
      XCTAssertEqual(hr_close(buffer), 0)
      usleep(20_000)
      XCTAssertEqual(live(), before + 2)
      XCTAssertEqual(hr_close(table), 0)
      eventually("both end with the table") { live() == before }
    }

    func testAFaultIsOutOfMemory() throws {
      setFaults([fault(STANDIN_MAKE_BUFFER, code: 1)])
      expect(Status.outOfMemory) { _ = try makeHeap(65536) }
      let heap = try makeHeap(65536)
      setFaults([fault(STANDIN_MAKE_BUFFER, code: 1)])
      expect(Status.outOfMemory) { _ = try makePart(heap, 16) }
      XCTAssertNoThrow(try makePart(heap, 16))
    }
  #endif

  func testTablesOfWrongArguments() throws {
    let buffer = try rig.buffer(100)
    expect(Status.invalid) { _ = try makeTable([], []) }
    XCTAssertTrue(expect(Status.outOfRange) { _ = try makeTable([buffer], [100]) }.contains("100"))
    expect(Status.invalid) { _ = try makeTable([buffer], [-1]) }
    expect(Status.invalid) { _ = try makeTable([buffer], [0.5]) }
    expect(Status.invalid) { _ = try makeTable([buffer], [Double.nan]) }
    expect(Status.invalid) { _ = try makeTable([try makeTable([buffer], [0])], [0]) }
    expect(Status.invalid) { _ = try makeTable([rig.queue], [0]) }
    let other = try Rig()
    defer { other.close() }
    expect(Status.invalid) { _ = try makeTable([try other.buffer(4)], [0]) }
    var table: hr_handle = 0
    XCTAssertEqual(hr_address_table_create(rig.device, nil, nil, 1, &table, nil), Status.invalid)
    XCTAssertEqual(hr_close(buffer), 0)
    expect(Status.closed) { _ = try makeTable([buffer], [0]) }
  }
}
