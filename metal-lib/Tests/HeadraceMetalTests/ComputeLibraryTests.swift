import CHeadrace
import Foundation
import XCTest

@testable import HeadraceMetal

/// Compiling, constants and archives through the exported functions.
final class ComputeLibraryTests: XCTestCase {
  func testCompileFailuresSayWhere() throws {
    let rig = try Rig()
    defer { rig.close() }
    let text = expect(Status.compileFailed) { _ = try rig.library("\nkernel void k(device uint *a [[buffer(0)]]) { a[0] = nowhere; }") }
    XCTAssertTrue(text.contains("program_source:2:") && text.contains("nowhere"), text)
    expect(Status.invalid) { _ = try rig.library("", macros: "1X=2") }
    let newer = expect(Status.unsupported) { _ = try rig.library("", language: 9 << 16) }
    XCTAssertTrue(newer.contains("9.0"), newer)
    for strange: UInt32 in [1 << 16, 2 << 16 | 9, 7] { expect(Status.unsupported) { _ = try rig.library("", language: strange) } }
    let library = try rig.library("#if A == 3 && B == 1\nkernel void k(device uint *a [[buffer(0)]]) {}\n#endif", macros: "A=3\nB", language: 3 << 16 | 1)
    let missing = expect(Status.invalid) { _ = try rig.pipeline(library, "j") }
    XCTAssertTrue(missing.contains("j") && missing.contains("k"), missing)
    XCTAssertEqual(hr_close(library), 0)
    expect(Status.closed) { _ = try rig.pipeline(library, "k") }
  }

  func testMathIsSafe() throws {
    let rig = try Rig()
    defer { rig.close() }
    // Fast math would take x - x for 0, and reassociate.
    let kernel = try rig.kernel(
      "kernel void k(device float *a [[buffer(0)]]) { a[1] = a[0] - a[0]; a[2] = (a[3] + a[4]) - a[4]; a[5] = a[3] * a[3] + a[6]; }", "k")
    let buffer = try rig.buffer(64)
    let floats = UnsafeMutableRawBufferPointer(try rig.bytes(buffer)).bindMemory(to: Float.self)
    floats[0] = .infinity
    floats[3] = 1.1
    floats[4] = 1e9
    floats[6] = -1.21
    XCTAssertEqual(try rig.launch([Launch(kernel, [0], threads: 1)], [buffer], ticket: 1).status, 0)
    XCTAssertTrue(floats[1].isNaN)
    XCTAssertEqual(floats[2], 0)
    XCTAssertEqual(floats[5], Float(1.1) * Float(1.1) + Float(-1.21))
  }

  static let constants = """
    constant uint N [[function_constant(0)]];
    constant int I [[function_constant(1)]];
    constant float F [[function_constant(2)]];
    constant bool B [[function_constant(7)]];
    kernel void k(device float *a [[buffer(0)]]) { a[0] = float(N); a[1] = float(I); a[2] = F; a[3] = B ? 1 : 2; }
    """

  func testFunctionConstantsHaveTheirTypes() throws {
    let rig = try Rig()
    defer { rig.close() }
    let library = try rig.library(Self.constants)
    let values = [
      hr_constant(index: 0, type: 2, bits: 4_000_000_000, reserved: 0), hr_constant(index: 1, type: 1, bits: UInt32(bitPattern: -5), reserved: 0),
      hr_constant(index: 2, type: 3, bits: Float(0.25).bitPattern, reserved: 0), hr_constant(index: 7, type: 0, bits: 1, reserved: 0),
    ]
    let kernel = try rig.pipeline(library, "k", values).handle
    let buffer = try rig.buffer(64)
    XCTAssertEqual(try rig.launch([Launch(kernel, [0], threads: 1)], [buffer], ticket: 1).status, 0)
    let floats = UnsafeMutableRawBufferPointer(try rig.bytes(buffer)).bindMemory(to: Float.self)
    XCTAssertEqual(Array(floats[0..<4]), [4e9, -5, 0.25, 1])
    expect(Status.compileFailed) { _ = try rig.pipeline(library, "k", Array(values.dropLast())) }
    expect(Status.invalid) { _ = try rig.pipeline(library, "k", [hr_constant(index: 0, type: 4, bits: 0, reserved: 0)]) }
  }

  func testArchivesAreUsedAndMended() throws {
    let folder = Folder()
    let path = folder.path + "/kernels.bin"
    let rig = try Rig()
    defer { rig.close() }
    let library = try rig.library(Sources.words)
    func isKnown(_ name: String) throws -> Bool { try rig.pipeline(library, name, archive: path).info.from_archive == 1 }
    XCTAssertFalse(try isKnown("set"))
    XCTAssertTrue(try isKnown("set"))
    XCTAssertTrue(try isKnown("move"), "the stand-in keeps a library's kernels as one object")
    let size = try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int ?? 0
    XCTAssertGreaterThan(size, 1000)
    // Damaged, cut short, empty, of another system: compiled again, and mended.
    let whole = try Data(contentsOf: URL(fileURLWithPath: path))
    var damaged = whole
    damaged[size / 2] ^= 0x20
    for content in [damaged, whole.prefix(size / 3), Data()] {
      try content.write(to: URL(fileURLWithPath: path))
      XCTAssertFalse(try isKnown("set"))
      XCTAssertTrue(try isKnown("set"))
    }
    try "another system".write(toFile: path + ".stamp", atomically: true, encoding: .utf8)
    XCTAssertFalse(try isKnown("set"))
    XCTAssertTrue(try isKnown("set"))
    // One that cannot be written is no failure.
    let nowhere = try rig.pipeline(library, "set", archive: folder.path + "/missing/kernels.bin")
    XCTAssertEqual(nowhere.info.from_archive, 0)
    XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted(), ["kernels.bin", "kernels.bin.lock", "kernels.bin.stamp"])
  }

  func testManyAddToOneArchive() throws {
    let folder = Folder()
    let path = folder.path + "/shared.bin"
    let rig = try Rig()
    defer { rig.close() }
    let libraries = try (0..<6).map { try rig.library("kernel void k(device uint *a [[buffer(0)]]) { a[0] = \($0); }") }
    DispatchQueue.concurrentPerform(iterations: 6) { index in
      do { _ = try rig.pipeline(libraries[index], "k", archive: path) } catch { XCTFail("\(error)") }
    }
    for library in libraries { XCTAssertEqual(try rig.pipeline(library, "k", archive: path).info.from_archive, 1) }
  }
}
