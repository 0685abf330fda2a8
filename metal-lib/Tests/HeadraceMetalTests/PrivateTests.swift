import CHeadrace
import Foundation
import XCTest

@testable import HeadraceMetal

/// Memory that the GPU alone sees.
final class PrivateTests: XCTestCase {
  let folder = Folder()

  func testNewPrivateMemoryIsZeroed() throws {
    let rig = try Rig()
    defer { rig.close() }
    for size in [1, 1000, 100_001] {
      let hidden = try rig.buffer(size, HR_PRIVATE)
      XCTAssertEqual(try rig.info(hidden).host_address, 0)
      XCTAssertNotEqual(try rig.info(hidden).gpu_address, 0)
      let shown = try rig.buffer(size)
      _ = try rig.bytes(shown).update(repeating: 9)
      XCTAssertEqual(try rig.run([request(HR_COPY, 0, 0, 1, 0, Double(size))], [hidden, shown]).status, 0)
      XCTAssert(try rig.bytes(shown).allSatisfy { $0 == 0 })
    }
  }

  func testBytesGoThereAndComeBack() throws {
    let rig = try Rig()
    defer { rig.close() }
    let size = 100_003
    let source = try rig.buffer(size)
    let hidden = try rig.buffer(size, HR_PRIVATE)
    let other = try rig.buffer(size, HR_PRIVATE)
    let target = try rig.buffer(size)
    _ = try rig.bytes(source).update(fromContentsOf: pattern(size))
    let length = Double(size - 7)
    let row = try rig.run(
      [
        request(HR_COPY, 0, 7, 1, 0, length), request(HR_BARRIER), request(HR_COPY, 1, 0, 2, 3, length),
        request(HR_BARRIER), request(HR_COPY, 2, 3, 3, 5, length),
      ], [source, hidden, other, target])
    XCTAssertEqual(row.status, 0)
    XCTAssertEqual(row.bytes_done, 3 * length)
    XCTAssert(Array(try rig.bytes(target)[5..<size - 2]) == Array(pattern(size)[7...]))
  }

  func testFilesAreReadIntoItAndWrittenFromIt() throws {
    var options = hr_device_options()
    options.piece_bytes = 1 << 20
    let rig = try Rig(options)
    defer { rig.close() }
    // More than the staging memory holds at once.
    let size = (20 << 20) + 12_345
    let source = try rig.file(try folder.file("source", size))
    let target = try rig.file(folder.path + "/target", HR_FILE_WRITE)
    let hidden = try rig.buffer(size, HR_PRIVATE)
    let length = Double(size - 11)
    let read = try rig.run(
      [request(HR_READ, 0, 11, 2, 3, length - 1000), request(HR_READ, 0, Double(size - 1000), 2, Double(size - 1008), 1000)],
      [source, target, hidden])
    XCTAssertEqual(read.status, 0)
    XCTAssertEqual(read.bytes_done, length)
    let written = try rig.run([request(HR_WRITE, 2, 3, 1, 9, length), request(HR_BARRIER), request(HR_SYNC, 1)], [source, target, hidden])
    XCTAssertEqual(written.status, 0)
    XCTAssertEqual(written.bytes_done, length)
    let bytes = try Data(contentsOf: URL(fileURLWithPath: folder.path + "/target"))
    XCTAssert(bytes.dropFirst(9) == Data(pattern(size)[11...]))
    folder.truncate("source", to: 5000)
    let text = try rig.fail(Status.shortRead, [request(HR_READ, 0, 100, 2, 0, 10_000)], [source, target, hidden])
    XCTAssert(text.contains("bytes [100, 10100) were asked for and the file ended after 4900 of 10000"), text)
  }

  func testMappingsAreCopiedIntoIt() throws {
    let rig = try Rig()
    defer { rig.close() }
    let file = try rig.file(try folder.file("mapped", 200_000))
    let mapping = try rig.map(file, 12_345, 150_000)
    let hidden = try rig.buffer(150_000, HR_PRIVATE)
    let shown = try rig.buffer(150_000)
    let row = try rig.run(
      [request(HR_COPY, 0, 0, 1, 0, 150_000), request(HR_BARRIER), request(HR_COPY, 1, 0, 2, 0, 150_000)],
      [mapping, hidden, shown])
    XCTAssertEqual(row.status, 0)
    XCTAssert(Array(try rig.bytes(shown)) == Array(pattern(200_000)[12_345..<162_345]))
    folder.truncate("mapped", to: 100)
    expect(Status.fileChanged) { _ = try rig.submit([request(HR_COPY, 0, 0, 1, 0, 150_000)], [mapping, hidden]) }
  }
}
