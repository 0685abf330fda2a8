#if os(Linux)
import CHeadrace
import CStandIn
import Foundation
import Metal
import XCTest

@testable import HeadraceMetal

final class CompressionTests: StreamTestCase {
  private func compress(
    _ device: Device, _ source: String, codec: UInt32 = 2, chunk: Int = 65_536, then: (any RunningWork) -> Void = { _ in }
  ) -> RunEnd {
    let target = folder + "/target"
    return wait(
      {
        startCompression(device: device, source: source, target: target, codec: codec, chunkBytes: chunk, ended: $0)
      }, then: then)
  }

  /// Names in the folder apart from the source's.
  private func others() throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0 != "raw" }.sorted()
  }

  func testEveryMethodAndChunkSizeRoundTrips() throws {
    let device = try device()
    let content = sample(5_000_001)
    let source = try write(content)
    let target = try Buffer.makeShared(device: device, byteLength: content.count)
    for codec in 0...4 {
      for chunk in [4096, 65_536, 1 << 20] {
        let end = compress(device, source, codec: UInt32(codec), chunk: chunk)
        XCTAssertNil(end.failure)
        XCTAssertEqual(end.bytesDone, content.count)
        XCTAssertEqual(try others(), ["target"])
        let file = try device.streams.open(path: folder + "/target", codec: UInt32(codec), byteLength: content.count)
        let load = StreamLoad(file: file, fileOffset: 0, target: target, targetOffset: 0, byteLength: content.count)
        XCTAssertNil(wait { device.streams.start([load], ended: $0) }.failure)
        XCTAssertTrue(bytes(target, 0..<content.count) == content, "codec \(codec) chunk \(chunk)")
      }
    }
  }

  func testFailuresLeaveNothingBehind() throws {
    let source = try write(sample(9 << 20))
    let cases: [(Int, UInt32, Int32, Int64, hr_status)] = [
      (STANDIN_PREAD, 2, EIO, -1, Status.io), (STANDIN_COMPRESS, 1, ENOSPC, -1, Status.io),
      (STANDIN_IO_HANDLE, 1, EMFILE, -1, Status.corrupt), (STANDIN_IO_COMMAND_BUFFER, 2, EIO, -1, Status.corrupt),
      (STANDIN_IO_COMMAND_BUFFER, 1, -1, -1, Status.io), (STANDIN_MAKE_BUFFER, 1, ENOMEM, -1, Status.outOfMemory),
      (STANDIN_SYNC, 1, EIO, -1, Status.io),
    ]
    for (call, nth, code, limit, status) in cases {
      // A new one, that keeps no scratch memory yet.
      let device = try device()
      fault(call, nth: nth, code: code, limit: limit)
      XCTAssertEqual(compress(device, source).failure?.status, status, "call \(call)")
      XCTAssertEqual(try others(), [], "call \(call)")
      standin_set_faults(nil, 0)
    }
    let device = try device()
    // Not failures: reads that were interrupted, and short ones.
    fault(STANDIN_PREAD, times: 2, code: EINTR)
    XCTAssertNil(compress(device, source).failure)
    fault(STANDIN_PREAD, times: 1000, limit: 100_003)
    XCTAssertNil(compress(device, source).failure)
    XCTAssertEqual(try others(), ["target"])
  }

  func testAFailureKeepsAnOlderTarget() throws {
    let device = try device()
    let source = try write(sample(100_000))
    XCTAssertNil(compress(device, source).failure)
    let before = try Data(contentsOf: URL(fileURLWithPath: folder + "/target"))
    fault(STANDIN_COMPRESS, code: ENOSPC)
    XCTAssertEqual(compress(device, source, codec: 1).failure?.status, Status.io)
    XCTAssertEqual(try Data(contentsOf: URL(fileURLWithPath: folder + "/target")), before)
    XCTAssertNil(compress(device, source, codec: 1).failure)
    XCTAssertNotEqual(try Data(contentsOf: URL(fileURLWithPath: folder + "/target")), before)
  }

  func testWrongArgumentsAreTold() throws {
    let device = try device()
    let source = try write(sample(100))
    XCTAssertEqual(compress(device, source, codec: 5).failure?.status, Status.invalid)
    XCTAssertEqual(compress(device, source, codec: HR_CODEC_NONE).failure?.status, Status.invalid)
    XCTAssertEqual(compress(device, source, chunk: 100).failure?.status, Status.invalid)
    XCTAssertEqual(compress(device, folder + "/missing").failure?.status, Status.io)
    XCTAssertEqual(compress(device, folder).failure?.status, Status.notAFile)
    XCTAssertEqual(compress(device, try write([], "raw")).failure?.status, Status.invalid)
    let nowhere = wait {
      startCompression(
        device: device, source: source, target: folder + "/no/folder/target", codec: 2, chunkBytes: 65_536, ended: $0)
    }
    XCTAssertNotNil(nowhere.failure)
    XCTAssertEqual(try others(), [])
  }

  func testACancelledRunEndsSoonAndLeavesNothing() throws {
    configure { $0.bytes_per_second = 4 << 20 }
    let device = try device()
    let source = try write(sample(24 << 20))
    for delayUs: UInt32 in [0, 300_000] {
      let startMs = clockMs()
      let end = compress(device, source) { work in
        usleep(delayUs)
        work.stop()
      }
      XCTAssertEqual(end.failure?.status, Status.cancelled)
      XCTAssertLessThan(clockMs() - startMs, 3000)
      XCTAssertEqual(try others(), [])
    }
  }

  func testTellsHowFarItHasCome() throws {
    let rig = try Rig()
    defer { rig.close() }
    let source = try write(sample(8 << 20))
    // Between compressing and comparing.
    fault(STANDIN_COMPRESS, delayUs: 400_000)
    try call { hr_compress(rig.queue, source, folder + "/target", 2, 0, 1000, $0) }
    while standin_calls(UInt32(STANDIN_COMPRESS)) == 0 { usleep(1000) }
    var done = -1.0
    try call { hr_compress_progress(rig.queue, 1000, &done, $0) }
    XCTAssertEqual(done, Double(4 << 20))
    XCTAssertEqual(try rig.end(of: 1000).bytes_done, Double(8 << 20))
    try call { hr_compress_progress(rig.queue, 1000, &done, $0) }
    XCTAssertEqual(done, 0)
    XCTAssertEqual(hr_compress_progress(rig.queue, 1000, nil, nil), Status.invalid)
    XCTAssertEqual(hr_compress_progress(0, 1000, &done, nil), Status.invalid)
  }

  func testASourceThatGrowsOrShrinksIsTold() throws {
    let device = try device()
    for (length, status) in [(9 << 20, Status.fileChanged), (3 << 20, Status.shortRead)] {
      let source = try write(sample(8 << 20))
      // Between compressing and comparing.
      fault(STANDIN_COMPRESS, delayUs: 400_000)
      let end = compress(device, source) { _ in
        while standin_calls(UInt32(STANDIN_COMPRESS)) == 0 { usleep(1000) }
        truncate(source, off_t(length))
      }
      XCTAssertEqual(end.failure?.status, status)
      XCTAssertEqual(try others(), [])
    }
  }

  func testASourceThatChangesUnderItIsCorrupt() throws {
    let device = try device()
    let source = try write(sample(1 << 20))
    fault(STANDIN_COMPRESS, delayUs: 400_000)
    let end = compress(device, source) { _ in
      while standin_calls(UInt32(STANDIN_COMPRESS)) == 0 { usleep(1000) }
      guard let handle = FileHandle(forWritingAtPath: source) else { return XCTFail("no handle") }
      handle.seek(toFileOffset: 500_000)
      handle.write(Data([1, 2, 3, 4]))
      handle.closeFile()
    }
    XCTAssertEqual(end.failure?.status, Status.corrupt)
    XCTAssertEqual(try others(), [])
  }

  func testCompressesAsATicketOfAQueue() throws {
    let content = sample(300_000)
    let source = try write(content)
    var device: hr_handle = 0
    var wake: Int32 = -1
    var queue: hr_handle = 0
    XCTAssertEqual(hr_device_open(0, nil, &device, &wake, nil), Status.ok)
    XCTAssertEqual(hr_queue_create(device, &queue, nil), Status.ok)
    let target = folder + "/target"
    XCTAssertEqual(hr_compress(queue, source, target, 2, 10, 1, nil), Status.invalid)
    XCTAssertEqual(hr_compress(queue, source, target, 9, 0, 1, nil), Status.invalid)
    XCTAssertEqual(hr_compress(queue, nil, target, 2, 0, 1, nil), Status.invalid)
    XCTAssertEqual(hr_compress(queue, source, target, 2, 0, 1, nil), Status.ok)
    var row = hr_completion()
    XCTAssertEqual(hr_device_wait(device, &row, 1, 20_000), 1)
    XCTAssertEqual(row.ticket, 1)
    XCTAssertEqual(row.status, 0)
    XCTAssertEqual(row.bytes_done, 300_000)
    XCTAssertEqual(hr_compress(queue, source + "x", target, 2, 0, 2, nil), Status.ok)
    XCTAssertEqual(hr_device_wait(device, &row, 1, 20_000), 1)
    XCTAssertEqual(row.status, Double(Status.io))
    XCTAssertEqual(row.os_errno, Double(ENOENT))
    XCTAssertEqual(hr_close(device), Status.ok)
  }
}
#endif
