import Foundation
import MetalPerformanceShaders
import XCTest

@testable import Metal

/// Products of matrices, as Metal Performance Shaders make them.
final class ProductTests: StandInTestCase {
  private static let variable = "STANDIN_PRODUCT_TRAP"

  func testElementTypesAreTheirs() {
    XCTAssertEqual(MPSDataType.float32.rawValue, 0x1000_0020)
    XCTAssertEqual(MPSDataType.float16.rawValue, 0x1000_0010)
    XCTAssertFalse(MPSSupportsMTLDevice(nil))
    XCTAssertTrue(MPSSupportsMTLDevice(MTLCreateSystemDefaultDevice()))
  }

  func testEachWayToTransposeAndScale() throws {
    let bench = try Bench()
    // 2 x 3 times 3 x 2, and the same with either side turned.
    let (a, turnedA): ([Float], [Float]) = ([1, 2, 3, 4, 5, 6], [1, 4, 2, 5, 3, 6])
    let (b, turnedB): ([Float], [Float]) = ([7, 8, 9, 10, 11, 12], [7, 9, 11, 8, 10, 12])
    for (turnsA, turnsB) in [(false, false), (true, false), (false, true), (true, true)] {
      let left = try bench.matrix(turnsA ? turnedA : a, turnsA ? 3 : 2, turnsA ? 2 : 3)
      let right = try bench.matrix(turnsB ? turnedB : b, turnsB ? 2 : 3, turnsB ? 3 : 2)
      let result = try bench.matrix([1, 1, 1, 1], 2, 2)
      let product = bench.product(2, 2, 3, left: turnsA, right: turnsB, alpha: 2, beta: -10)
      try bench.run { product.encode(commandBuffer: $0, leftMatrix: left, rightMatrix: right, resultMatrix: result) }
      XCTAssertEqual(bench.floats(result), [106, 118, 268, 298], "\(turnsA) \(turnsB)")
    }
  }

  func testWithoutBetaTheResultIsNotRead() throws {
    let bench = try Bench()
    let (one, result) = (try bench.matrix([3], 1, 1), try bench.matrix([.nan], 1, 1))
    try bench.run { bench.product(1, 1, 1).encode(commandBuffer: $0, leftMatrix: one, rightMatrix: one, resultMatrix: result) }
    XCTAssertEqual(bench.floats(result), [9])
  }

  func testHalvesAreRoundedOnceAtTheEnd() throws {
    let bench = try Bench()
    let left = try bench.halves([2048, 1], 1, 2)
    let right = try bench.halves([1, 1], 2, 1)
    let rounded = try bench.halves([0], 1, 1)
    let exact = try bench.matrix([0], 1, 1)
    for result in [rounded, exact] {
      try bench.run { bench.product(1, 1, 2).encode(commandBuffer: $0, leftMatrix: left, rightMatrix: right, resultMatrix: result) }
    }
    // 2049 lies between two halves.
    XCTAssertEqual(rounded.data.contents().load(as: UInt16.self), 0x6800)
    XCTAssertEqual(bench.floats(exact), [2049])
  }

  func testRowsMayLieApartAndStartAnywhere() throws {
    let bench = try Bench()
    let buffer = try bench.buffer([9, 1, 2, 9, 3, 4, 9])
    let descriptor = MPSMatrixDescriptor(rows: 2, columns: 2, rowBytes: 12, dataType: .float32)
    let apart = MPSMatrix(buffer: buffer, offset: 4, descriptor: descriptor)
    let one = try bench.matrix([1, 0, 0, 1], 2, 2)
    let target = try bench.buffer([5, 5, 5, 5, 5, 5, 5])
    let result = MPSMatrix(buffer: target, offset: 4, descriptor: descriptor)
    try bench.run { bench.product(2, 2, 2).encode(commandBuffer: $0, leftMatrix: apart, rightMatrix: one, resultMatrix: result) }
    XCTAssertEqual(bench.floats(result), [5, 1, 2, 5, 3, 4, 5])
  }

  /// What is done, and a part of what the stand-in says to it.
  private static let rules: [(name: String, message: String, body: @Sendable (Bench) throws -> Void)] = [
    ("no rows", "0 x 3 elements", { _ in _ = MPSMatrixDescriptor(rows: 0, columns: 3, rowBytes: 12, dataType: .float32) }),
    ("rows of half an element", "no multiple of an element's 4", { _ in
      _ = MPSMatrixDescriptor(rows: 1, columns: 1, rowBytes: 6, dataType: .float32)
    }),
    ("rows that overlap", "less than 3 elements", { _ in
      _ = MPSMatrixDescriptor(rows: 2, columns: 3, rowBytes: 8, dataType: .float32)
    }),
    ("past the buffer", "outside the buffer's 16", { bench in
      let descriptor = MPSMatrixDescriptor(rows: 2, columns: 2, rowBytes: 8, dataType: .float32)
      _ = MPSMatrix(buffer: try bench.buffer([1, 2, 3, 4]), offset: 4, descriptor: descriptor)
    }),
    ("before the buffer", "outside the buffer's 16", { bench in
      let descriptor = MPSMatrixDescriptor(rows: 1, columns: 1, rowBytes: 4, dataType: .float32)
      _ = MPSMatrix(buffer: try bench.buffer([1, 2, 3, 4]), offset: -4, descriptor: descriptor)
    }),
    ("within an element", "elements of 4 bytes", { bench in
      let descriptor = MPSMatrixDescriptor(rows: 1, columns: 1, rowBytes: 4, dataType: .float32)
      _ = MPSMatrix(buffer: try bench.buffer([1, 2]), offset: 2, descriptor: descriptor)
    }),
    ("a product of nothing", "has no elements", { _ = $0.product(1, 1, 0) }),
    ("too small a left side", "the left matrix of 1 x 2 is less than 2 x 2", { try $0.encode((1, 2), (2, 2), (2, 2)) }),
    ("too small a right side", "the right matrix of 2 x 1 is less than 2 x 2", { try $0.encode((2, 2), (2, 1), (2, 2)) }),
    ("too small a result", "the result matrix of 1 x 2 is less than 2 x 2", { try $0.encode((2, 2), (2, 2), (1, 2)) }),
    ("types that differ", "a product of float32 and float16", { bench in
      let (left, right) = (try bench.matrix([1], 1, 1), try bench.halves([1], 1, 1))
      try bench.run { bench.product(1, 1, 1).encode(commandBuffer: $0, leftMatrix: left, rightMatrix: right, resultMatrix: left) }
    }),
    ("floats into halves", "into float16", { bench in
      let (one, half) = (try bench.matrix([1], 1, 1), try bench.halves([1], 1, 1))
      try bench.run { bench.product(1, 1, 1).encode(commandBuffer: $0, leftMatrix: one, rightMatrix: one, resultMatrix: half) }
    }),
    ("another device's matrix", "belongs to another device", { bench in
      let (own, other) = (try bench.matrix([1], 1, 1), try Bench().matrix([1], 1, 1))
      try bench.run { bench.product(1, 1, 1).encode(commandBuffer: $0, leftMatrix: own, rightMatrix: other, resultMatrix: own) }
    }),
    ("while an encoder is open", "while an encoder is open", { bench in
      let one = try bench.matrix([1], 1, 1)
      try bench.run { commands in
        let encoder = commands.makeBlitCommandEncoder()
        bench.product(1, 1, 1).encode(commandBuffer: commands, leftMatrix: one, rightMatrix: one, resultMatrix: one)
        encoder?.endEncoding()
      }
    }),
    ("after commit", "after commit", { bench in
      let one = try bench.matrix([1], 1, 1)
      let commands = try XCTUnwrap(bench.queue.makeCommandBuffer())
      commands.commit()
      bench.product(1, 1, 1).encode(commandBuffer: commands, leftMatrix: one, rightMatrix: one, resultMatrix: one)
    }),
    ("nothing kept", "keeps nothing", { bench in
      let one = try bench.matrix([1], 1, 1)
      let commands = try XCTUnwrap(bench.queue.makeCommandBufferWithUnretainedReferences())
      bench.product(1, 1, 1).encode(commandBuffer: commands, leftMatrix: one, rightMatrix: one, resultMatrix: one)
    }),
  ]

  func testEachBrokenRuleEndsTheProcess() throws {
    for rule in Self.rules {
      let (signal, text) = try runAgain("ProductTests/testBreaksTheRuleThatItWasStartedFor", Self.variable, rule.name)
      XCTAssertEqual(signal, SIGABRT, "\(rule.name): \(text)")
      XCTAssertTrue(text.contains(rule.message), "\(rule.name): \(text)")
    }
  }

  /// Does nothing but in the process that `runAgain` starts.
  func testBreaksTheRuleThatItWasStartedFor() throws {
    guard let name = ProcessInfo.processInfo.environment[Self.variable] else { return }
    let rule = try XCTUnwrap(Self.rules.first { $0.name == name })
    try rule.body(Bench())
  }
}

/// A device, and matrices on it.
private struct Bench {
  let device: any MTLDevice
  let queue: any MTLCommandQueue

  init() throws {
    device = try XCTUnwrap(MTLCreateSystemDefaultDevice())
    queue = try XCTUnwrap(device.makeCommandQueue())
  }

  func buffer(_ values: [Float]) throws -> any MTLBuffer {
    try XCTUnwrap(device.makeBuffer(bytes: values, length: values.count * 4, options: []))
  }

  func matrix(_ values: [Float], _ rows: Int, _ columns: Int) throws -> MPSMatrix {
    let descriptor = MPSMatrixDescriptor(rows: rows, columns: columns, rowBytes: columns * 4, dataType: .float32)
    return MPSMatrix(buffer: try buffer(values), offset: 0, descriptor: descriptor)
  }

  func halves(_ values: [Float], _ rows: Int, _ columns: Int) throws -> MPSMatrix {
    let descriptor = MPSMatrixDescriptor(rows: rows, columns: columns, rowBytes: columns * 2, dataType: .float16)
    let buffer = try XCTUnwrap(device.makeBuffer(bytes: values.map { Float16($0) }, length: values.count * 2, options: []))
    return MPSMatrix(buffer: buffer, offset: 0, descriptor: descriptor)
  }

  /// All of the matrix's buffer.
  func floats(_ matrix: MPSMatrix) -> [Float] {
    Array(UnsafeRawBufferPointer(start: matrix.data.contents(), count: matrix.data.length).bindMemory(to: Float.self))
  }

  func product(
    _ rows: Int, _ columns: Int, _ interior: Int, left: Bool = false, right: Bool = false, alpha: Double = 1, beta: Double = 0
  ) -> MPSMatrixMultiplication {
    MPSMatrixMultiplication(
      device: device, transposeLeft: left, transposeRight: right, resultRows: rows, resultColumns: columns,
      interiorColumns: interior, alpha: alpha, beta: beta)
  }

  /// A product of 2 x 2 with matrices of these sizes.
  func encode(_ sizes: (Int, Int)...) throws {
    let all = try sizes.map { try matrix([Float](repeating: 1, count: $0.0 * $0.1), $0.0, $0.1) }
    try run { product(2, 2, 2).encode(commandBuffer: $0, leftMatrix: all[0], rightMatrix: all[1], resultMatrix: all[2]) }
  }

  func run(_ encode: (any MTLCommandBuffer) -> Void) throws {
    let commands = try XCTUnwrap(queue.makeCommandBuffer())
    encode(commands)
    commands.commit()
    commands.waitUntilCompleted()
    XCTAssertEqual(commands.status, .completed)
  }
}
