import CHeadrace
import Foundation
import XCTest

@testable import HeadraceMetal

final class FileTests: XCTestCase {
  let folder = Folder()

  func testWhatIsNotThereOrNoFile() throws {
    let rig = try Rig()
    defer { rig.close() }
    func open(_ path: String, _ flags: Int = 0) -> hr_error {
      var error = hr_error()
      var file: hr_handle = 0
      var length: UInt64 = 0
      XCTAssertLessThan(hr_file_open(rig.device, path, UInt32(flags), HR_CODEC_NONE, &file, &length, &error), 0)
      return error
    }
    XCTAssertEqual(open(folder.path + "/missing").os_errno, ENOENT)
    XCTAssertEqual(open(folder.path + "/missing").status, Status.io)
    XCTAssertEqual(open(folder.path + "/no/such", HR_FILE_WRITE).os_errno, ENOENT)
    XCTAssertEqual(open(try folder.file("plain", 1) + "/inside").os_errno, ENOTDIR)
    XCTAssertEqual(open(folder.path + "/" + String(repeating: "x", count: 300)).os_errno, ENAMETOOLONG)
    XCTAssertEqual(mkfifo(folder.path + "/pipe", 0o600), 0)
    let kinds = [(folder.path, "a directory"), (folder.path + "/pipe", "a pipe"), ("/dev/zero", "a device")]
    for (path, kind) in kinds {
      for flags in [0, HR_FILE_WRITE] {
        let error = open(path, flags)
        XCTAssertEqual(error.status, Status.notAFile)
        XCTAssert(message(error).contains(kind), message(error))
      }
    }
    XCTAssertEqual(open(try folder.file("f", 1), 8).status, Status.invalid)
    XCTAssertEqual(open(folder.path + "/f", HR_FILE_WRITE | HR_FILE_STREAM).status, Status.invalid)
    XCTAssertEqual(rig.openHandles, 1)
  }

  func testReadingAtOnce() throws {
    let rig = try Rig()
    defer { rig.close() }
    let file = try rig.file(try folder.file("c", 1000))
    var bytes = [UInt8](repeating: 0, count: 2000)
    var done: UInt64 = 9
    try call { hr_file_read(file, 10, 100, &bytes, &done, $0) }
    XCTAssertEqual(done, 100)
    XCTAssertEqual(Array(bytes[..<100]), Array(pattern(1000)[10..<110]))
    try call { hr_file_read(file, 990, 20, &bytes, &done, $0) }
    XCTAssertEqual(done, 10)
    try call { hr_file_read(file, 5000, 20, &bytes, &done, $0) }
    XCTAssertEqual(done, 0)
    try call { hr_file_read(file, 5, 0, nil, &done, $0) }
    expect(Status.outOfRange) { try call { hr_file_read(file, .max, 20, &bytes, &done, $0) } }
    expect(Status.invalid) { try call { hr_file_read(file, 0, 20, nil, &done, $0) } }
  }

  func testLengthNowAndPreallocation() throws {
    let rig = try Rig()
    defer { rig.close() }
    let file = try rig.file(folder.path + "/grows", HR_FILE_WRITE)
    var length: UInt64 = 9
    do {
      try call { hr_file_preallocate(file, 1 << 20, $0) }
    } catch let refused as Refused where refused.status == Status.unsupported {
      XCTAssert(refused.text.contains("1048576"))
    }
    try call { hr_file_length(file, &length, $0) }
    XCTAssertEqual(length, 0)
    let reader = try rig.file(try folder.file("d", 10))
    expect(Status.invalid) { try call { hr_file_preallocate(reader, 10, $0) } }
    folder.truncate("d", to: 4)
    try call { hr_file_length(reader, &length, $0) }
    XCTAssertEqual(length, 4)
  }

  func testAShrunkFileGivesTheNumbers() throws {
    for pieceBytes: UInt64 in [0, 4096] {
      var options = hr_device_options()
      options.piece_bytes = pieceBytes
      let rig = try Rig(options)
      defer { rig.close() }
      let file = try rig.file(try folder.file("shrinks", 100_000))
      let buffer = try rig.buffer(100_000)
      folder.truncate("shrinks", to: 60_000)
      let text = try rig.fail(
        Status.shortRead, [request(HR_BARRIER), request(HR_READ, 0, 50_000, 1, 0, 40_000)], [file, buffer])
      XCTAssertEqual(
        text,
        "request 1: bytes [50000, 90000) were asked for and the file ended after 10000 of 40000; "
          + "it is truncated or has shrunk")
      XCTAssertEqual(try rig.run([request(HR_READ, 0, 0, 1, 0, 60_000)], [file, buffer]).status, 0)
    }
  }
}
