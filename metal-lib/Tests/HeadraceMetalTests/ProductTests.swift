import CHeadrace
import XCTest

@testable import HeadraceMetal

#if canImport(CStandIn)
  import CStandIn
#endif

/// Matrix products through the exported functions.
final class ProductTests: XCTestCase {
  let folder = Folder()

  #if canImport(CStandIn)
    override func tearDown() { setFaults([]) }
  #endif

  func testRowsOfAnyNumberAreMultiplied() throws {
    let rig = try Rig()
    defer { rig.close() }
    let (inner, outputs, stride) = (37, 11, 13)
    let product = try rig.product(inner, outputs, stride: stride)
    for (index, rows) in [1, 5, 40].enumerated() {
      let x = try rig.floats((0..<rows * inner).map { Float($0 % 19) - 9 })
      let w = try rig.floats((0..<outputs * inner).map { Float($0 % 7) - 3 })
      let y = try rig.floats([Float](repeating: 0.5, count: rows * stride))
      let row = try rig.launch([Launch(product, [0, 1, 2], threads: rows)], [x, w, y], ticket: Double(index + 1))
      XCTAssertEqual(row.status, 0)
      let (from, by, made) = (try rig.floats(x), try rig.floats(w), try rig.floats(y))
      for i in 0..<rows {
        for j in 0..<stride {
          // Whole numbers, so that every order of additions gives the same; and what lies between rows stays.
          let sum = j >= outputs ? 0.5 : (0..<inner).reduce(Float(0)) { $0 + from[i * inner + $1] * by[j * inner + $1] }
          XCTAssertEqual(made[i * stride + j], sum, "\(i) \(j)")
        }
      }
    }
  }

  func testItAddsAndTakesHalves() throws {
    let rig = try Rig()
    defer { rig.close() }
    let x = try rig.halves([0x4000, 0x4200])  // 2, 3
    let w = try rig.halves([0x3c00, 0x4400])  // 1, 4
    let y = try rig.floats([100])
    let adds = try rig.product(2, 1, type: HR_F16, accumulate: 1)
    let replaces = try rig.product(2, 1, type: HR_F16)
    XCTAssertEqual(try rig.launch([Launch(adds, [0, 1, 2], threads: 1)], [x, w, y], ticket: 1).status, 0)
    XCTAssertEqual(try rig.floats(y)[0], 114)
    // Each sees what the one before made.
    let launches = [replaces, adds, adds].map { Launch($0, [0, 1, 2], threads: 1) }
    XCTAssertEqual(try rig.launch(launches, [x, w, y], ticket: 2).status, 0)
    XCTAssertEqual(try rig.floats(y)[0], 42)
    let narrow = try rig.product(2, 1, type: HR_F16, output: HR_F16)
    XCTAssertEqual(try rig.launch([Launch(narrow, [0, 1, 2], threads: 1)], [x, w, y], ticket: 3).status, 0)
    XCTAssertEqual(try rig.words(y)[0] & 0xffff, 0x4b00)  // 14
  }

  func testShapesAndTypesThatAreNone() throws {
    let rig = try Rig()
    defer { rig.close() }
    let most = 1 << 28
    let before = rig.openHandles
    for (inner, outputs, stride) in [(0, 1, 1), (1, 0, 1), (1, 0, 0), (1, 3, 2), (most + 1, 1, 1), (1, most + 1, most + 1), (1, 1, most + 1)] {
      let text = expect(Status.invalid) { _ = try rig.product(inner, outputs, stride: stride) }
      XCTAssertTrue(text.contains("\(most)"), text)
    }
    for (type, output) in [(2, HR_F32), (HR_F32, 2), (HR_F32, HR_F16), (Int(UInt32.max), HR_F32)] {
      expect(Status.invalid) { _ = try rig.product(2, 2, type: type, output: output) }
    }
    XCTAssertEqual(rig.openHandles, before)
    let handle = try rig.product(most, most)
    XCTAssertEqual(hr_close(handle), 0)
  }

  func testLaunchesThatDoNotFit() throws {
    let rig = try Rig()
    defer { rig.close() }
    let product = try rig.product(4, 3)
    let (x, w, y) = (try rig.buffer(32), try rig.buffer(48), try rig.buffer(24))
    let objects = [x, w, y]
    let good = Launch(product, [0, 1, 2], threads: 2)
    func refused(_ status: hr_status, _ part: String, line: UInt = #line, _ change: (inout Launch) -> Void) {
      var launch = good
      change(&launch)
      let text = expect(status, line: line) { try rig.launch([launch], objects, ticket: 1) }
      XCTAssertTrue(text.contains(part), text, line: line)
    }
    refused(Status.invalid, "takes x, w and y") { $0.buffers.removeLast() }
    refused(Status.invalid, "4 bytes") { $0.constants = [1, 2, 3, 4] }
    refused(Status.invalid, "bound twice") { $0.buffers[2].index = 1 }
    refused(Status.invalid, "argument y") { $0.buffers[2].index = 3 }
    refused(Status.outOfRange, "x needs 48 bytes") { $0.threads.0 = 3 }
    refused(Status.invalid, "268435457 rows") { $0.threads.0 = (1 << 28) + 1 }
    for (index, name) in ["x", "w", "y"].enumerated() {
      refused(Status.outOfRange, "\(name) needs") { $0.buffers[index].offset = 4 }
      refused(Status.invalid, "offset 2 of \(name)") { $0.buffers[index].offset = 2 }
    }
    // No rows touch nothing, whatever is bound.
    var none = good
    none.threads.0 = 0
    XCTAssertEqual(try rig.launch([none], [x, w, x], ticket: 1).status, 0)
    XCTAssertEqual(try rig.launch([good], objects, ticket: 2).status, 0)
  }

  func testMemoryOfEveryKind() throws {
    let rig = try Rig()
    defer { rig.close() }
    let product = try rig.product(1, 4)
    let path = try folder.file("mapped", 65536)
    let file = try rig.file(path)
    let mapping = try rig.map(file, 0, 16384)
    let x = try rig.floats([1])
    let w = try rig.floats([1, 2, 3, 4])
    let text = expect(Status.invalid) { try rig.launch([Launch(product, [0, 1, 2], threads: 1)], [x, w, mapping], ticket: 1) }
    XCTAssertTrue(text.contains("can only be read"), text)
    // Weights straight out of a file, into memory that the GPU alone sees, and back.
    let hidden = try rig.buffer(16, HR_PRIVATE)
    let shown = try rig.buffer(16)
    let launch = Launch(product, [0, 1, 2], threads: 1)
    XCTAssertEqual(try rig.launch([launch], [x, mapping, hidden], ticket: 1).status, 0)
    XCTAssertEqual(try rig.run([request(HR_COPY, 0, 0, 1, 0, 16)], [hidden, shown]).status, 0)
    let first = try rig.bytes(mapping)[0..<16].map { $0 }
    XCTAssertEqual(Array(try rig.bytes(shown)), first)
    // Memory of a heap too.
    var heap: hr_handle = 0
    var part: hr_handle = 0
    try call { hr_heap_create(rig.device, 65536, UInt32(HR_SHARED), &heap, $0) }
    try call { hr_buffer_create(heap, 16, UInt32(HR_SHARED), &part, $0) }
    XCTAssertEqual(try rig.launch([launch], [x, w, part], ticket: 3).status, 0)
    XCTAssertEqual(Array(try rig.floats(part)), [1, 2, 3, 4])
  }

  func testClosedAndStaleHandles() throws {
    let rig = try Rig()
    defer { rig.close() }
    let product = try rig.product(1, 1)
    let (x, w, y) = (try rig.floats([2]), try rig.floats([3]), try rig.floats([0]))
    let sequence = try rig.sequence([Launch(product, [Int(x), Int(w), Int(y)], threads: 1)])
    let launch = Launch(product, [0, 1, 2], threads: 1)
    for closed in [x, w, y] {
      let gone = try rig.floats([1])
      XCTAssertEqual(hr_close(gone), 0)
      let objects = [x, w, y].map { $0 == closed ? gone : $0 }
      expect(Status.closed) { try rig.launch([launch], objects, ticket: 1) }
      expect(Status.closed) { _ = try rig.sequence([Launch(product, objects.map { Int($0) }, threads: 1)]) }
    }
    XCTAssertEqual(hr_close(product), 0)
    XCTAssertEqual(hr_close(product), Status.closed)
    expect(Status.closed) { try rig.launch([launch], [x, w, y], ticket: 1) }
    // The next one has another handle, and a buffer is no pipeline.
    let next = try rig.product(1, 1)
    XCTAssertNotEqual(next, product)
    expect(Status.closed) { try rig.launch([launch], [x, w, y], ticket: 1) }
    expect(Status.invalid) { try rig.launch([Launch(x, [0, 1, 2], threads: 1)], [x, w, y], ticket: 1) }
    expect(Status.invalid) { try rig.launch([launchOf(next)], [x, next, y], ticket: 1) }
    // The sequence keeps product and buffers.
    for handle in [x, w] { XCTAssertEqual(hr_close(handle), 0) }
    try rig.submit([request(HR_REPLAY, 0, 0, -1, 0, 0)], [sequence], launches: [], ticket: 1)
    XCTAssertEqual(try rig.end(of: 1).status, 0)
    XCTAssertEqual(try rig.floats(y)[0], 6)
  }

  func testOtherDevicesAndClosedOnes() throws {
    let (rig, other) = (try Rig(), try Rig())
    defer { rig.close() }
    let product = try other.product(1, 1)
    let buffers = try (0..<3).map { _ in try rig.floats([1]) }
    expect(Status.invalid) { try rig.launch([launchOf(product)], buffers, ticket: 1) }
    let own = try rig.product(1, 1)
    let foreign = try other.floats([1])
    expect(Status.invalid) { try rig.launch([launchOf(own)], [buffers[0], foreign, buffers[2]], ticket: 1) }
    other.close()
    expect(Status.closed) { _ = try other.product(1, 1) }
    expect(Status.closed) { try rig.launch([launchOf(product)], buffers, ticket: 1) }
  }

  func testReplaysWithOtherOffsets() throws {
    let rig = try Rig()
    defer { rig.close() }
    let product = try rig.product(1, 2)
    let (x, w, y) = (try rig.floats([1, 10, 100]), try rig.floats([1, 2]), try rig.floats([0, 0]))
    var launch = Launch(product, [Int(x), Int(w), Int(y)], threads: 1)
    launch.buffers[0].slot = 0
    let sequence = try rig.sequence([launch])
    func replay(_ offset: Double, ticket: Double) throws {
      let replay = request(HR_REPLAY, 0, 0, -1, 0, 1)
      try rig.submit([replay], [sequence], launches: [], offsets: [hr_offset(slot: 0, offset: offset)], ticket: ticket)
      XCTAssertEqual(try rig.end(of: ticket).status, 0)
    }
    try replay(8, ticket: 1)
    XCTAssertEqual(Array(try rig.floats(y)), [100, 200])
    try replay(4, ticket: 2)
    XCTAssertEqual(Array(try rig.floats(y)), [10, 20])
    expect(Status.outOfRange) { try replay(12, ticket: 3) }
    expect(Status.invalid) { try replay(2, ticket: 3) }
  }

  #if canImport(CStandIn)
    func testAFailureOfTheGPUIsTheTickets() throws {
      var options = hr_device_options()
      options.flags = UInt32(HR_OPTION_RETRY_ONCE)
      let rig = try Rig(options)
      defer { rig.close() }
      let product = try rig.product(1, 1)
      let objects = [try rig.floats([2]), try rig.floats([3]), try rig.floats([0])]
      setFaults([fault(STANDIN_COMMAND_BUFFER, code: 2)])
      XCTAssertEqual(try rig.launch([launchOf(product)], objects, ticket: 1).status, 0)
      XCTAssertEqual(standin_calls(UInt32(STANDIN_COMMAND_BUFFER)), 2)
      XCTAssertEqual(try rig.floats(objects[2])[0], 6)
      setFaults([fault(STANDIN_COMMAND_BUFFER, code: 8)])
      XCTAssertEqual(try rig.launch([launchOf(product)], objects, ticket: 2).status, Double(Status.deviceFailed))
      setFaults([fault(STANDIN_COMMAND_BUFFER, code: 11)])
      XCTAssertEqual(try rig.launch([launchOf(product)], objects, ticket: 3).status, Double(Status.deviceLost))
      expect(Status.deviceLost) { _ = try rig.product(1, 1) }
    }
  #endif

  private func launchOf(_ product: hr_handle) -> Launch { Launch(product, [0, 1, 2], threads: 1) }
}

extension Rig {
  fileprivate func product(
    _ inner: Int, _ outputs: Int, stride: Int? = nil, type: Int = HR_F32, output: Int = HR_F32, accumulate: UInt32 = 0
  ) throws -> hr_handle {
    var product: hr_handle = 0
    try call {
      hr_matmul_create(
        device, UInt32(inner), UInt32(outputs), UInt32(stride ?? outputs), UInt32(type), UInt32(output), accumulate, &product, $0)
    }
    return product
  }

  fileprivate func floats(_ values: [Float]) throws -> hr_handle {
    let buffer = try self.buffer(values.count * 4)
    _ = try floats(buffer).update(fromContentsOf: values)
    return buffer
  }

  fileprivate func halves(_ bits: [UInt16]) throws -> hr_handle {
    let buffer = try self.buffer(bits.count * 2)
    _ = UnsafeMutableRawBufferPointer(try bytes(buffer)).bindMemory(to: UInt16.self).update(fromContentsOf: bits)
    return buffer
  }

  fileprivate func floats(_ buffer: hr_handle) throws -> UnsafeMutableBufferPointer<Float> {
    UnsafeMutableRawBufferPointer(try bytes(buffer)).bindMemory(to: Float.self)
  }
}
