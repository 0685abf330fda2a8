#if os(Linux)
import CHeadrace
import CStandIn
import Foundation
import Metal
import XCTest

@testable import HeadraceMetal

final class StreamsTests: StreamTestCase {
  private func load(_ file: StreamFile, _ from: Int, _ target: Buffer, _ to: Int, _ count: Int) -> StreamLoad {
    StreamLoad(file: file, fileOffset: from, target: target, targetOffset: to, byteLength: count)
  }

  func testRawLoadsLandWhereTheyShould() throws {
    let device = try device { $0.piece_bytes = 64 << 10 }
    let content = sample(1_000_003)
    let file = try device.streams.open(path: write(content), codec: HR_CODEC_NONE, byteLength: 0)
    XCTAssertEqual(file.byteLength, content.count)
    for makesPrivate in [false, true] {
      let target =
        try makesPrivate
        ? Buffer.makePrivate(device: device, byteLength: 1_000_100) : .makeShared(device: device, byteLength: 1_000_100)
      usleep(20_000)
      let loads = [load(file, 1, target, 7, 900_000), load(file, 900_001, target, 900_007, 100_002), load(file, 5, target, 0, 0)]
      let end = wait { device.streams.start(loads, ended: $0) }
      XCTAssertNil(end.failure)
      XCTAssertEqual(end.bytesDone, 1_000_002)
      XCTAssertEqual(bytes(target, 0..<7), [0, 0, 0, 0, 0, 0, 0])
      XCTAssertEqual(bytes(target, 7..<1_000_009), Array(content[1...]))
      XCTAssertGreaterThan(end.times.started, 0)
      XCTAssertLessThanOrEqual(end.times.started, end.times.encoded)
      XCTAssertLessThanOrEqual(end.times.encoded, end.times.committed)
    }
  }

  func testEveryMethodAndChunkSizeGivesAnyRange() throws {
    let device = try device()
    let content = sample(2_500_001)
    let target = try Buffer.makeShared(device: device, byteLength: content.count)
    for codec in 0...4 {
      for chunk in [4096, 65_536, 1 << 20] {
        let path = try pack(content, codec, chunk: chunk)
        let file = try device.streams.open(path: path, codec: UInt32(codec), byteLength: content.count)
        let ranges = [0..<content.count, chunk - 1..<chunk + 1, 3..<chunk * 2 + 5, content.count - 1..<content.count]
        for range in ranges {
          memset(target.bytes!, 0xee, content.count)
          let end = wait { device.streams.start([load(file, range.lowerBound, target, 1, range.count - 1)], ended: $0) }
          XCTAssertNil(end.failure, "codec \(codec) chunk \(chunk) \(range)")
          let whole = [0xee] + content[range.lowerBound..<range.upperBound - 1]
          XCTAssertTrue(bytes(target, 0..<range.count) == whole, "codec \(codec) chunk \(chunk) \(range)")
        }
      }
    }
  }

  func testManySmallLoadsOfManyFiles() throws {
    let device = try device { $0.io_max_command_buffers = 2 }
    let content = sample(400_000)
    let raw = try device.streams.open(path: write(content), codec: HR_CODEC_NONE, byteLength: 0)
    let packed = try device.streams.open(path: pack(content, 2, chunk: 4096), codec: 2, byteLength: content.count)
    let target = try Buffer.makeShared(device: device, byteLength: 4000 * 100)
    let loads = (0..<4000).map { load($0 % 2 == 0 ? raw : packed, $0 * 100, target, (3999 - $0) * 100, 100) }
    let end = wait { device.streams.start(loads, ended: $0) }
    XCTAssertNil(end.failure)
    XCTAssertEqual(end.bytesDone, 400_000)
    for index in stride(from: 0, to: 4000, by: 97) {
      let place = (3999 - index) * 100
      XCTAssertEqual(bytes(target, place..<place + 100), Array(content[index * 100..<index * 100 + 100]))
    }
  }

  func testNoLoadsEndWell() throws {
    let device = try device()
    let end = wait { device.streams.start([] as [StreamLoad], ended: $0) }
    XCTAssertNil(end.failure)
    XCTAssertEqual(end.bytesDone, 0)
  }

  func testEveryFailureOfACommandBufferIsTold() throws {
    let device = try device()
    let content = sample(100_000)
    let raw = try device.streams.open(path: write(content), codec: HR_CODEC_NONE, byteLength: 0)
    let packed = try device.streams.open(path: pack(content, 2), codec: 2, byteLength: content.count)
    let target = try Buffer.makeShared(device: device, byteLength: content.count)
    for (file, status) in [(raw, Status.io), (packed, Status.corrupt)] {
      fault(STANDIN_IO_COMMAND_BUFFER, code: 5)
      let failed = wait { device.streams.start([load(file, 0, target, 0, 100_000)], ended: $0) }
      XCTAssertEqual(failed.failure?.status, status)
      XCTAssertTrue(failed.failure?.message.contains("MTLIOError 5") ?? false, failed.failure?.message ?? "")
      fault(STANDIN_IO_COMMAND_BUFFER, code: -1)
      let cancelled = wait { device.streams.start([load(file, 0, target, 0, 100_000)], ended: $0) }
      XCTAssertEqual(cancelled.failure?.status, Status.io)
      XCTAssertTrue(cancelled.failure?.message.contains("cancelled it") ?? false)
      let good = wait { device.streams.start([load(file, 0, target, 0, 100_000)], ended: $0) }
      XCTAssertNil(good.failure)
    }
    XCTAssertEqual(counts().uncommitted_io_command_buffers, 0)
  }

  func testWithoutScratchMemoryItIsOutOfMemory() throws {
    let device = try device()
    let content = sample(100_000)
    let packed = try device.streams.open(path: pack(content, 2), codec: 2, byteLength: content.count)
    let target = try Buffer.makeShared(device: device, byteLength: content.count)
    fault(STANDIN_MAKE_BUFFER, code: 12)
    let end = wait { device.streams.start([load(packed, 0, target, 0, 100_000)], ended: $0) }
    XCTAssertEqual(end.failure?.status, Status.outOfMemory)
    fault(STANDIN_IO_SCRATCH, code: 12)
    let taken = wait { device.streams.start([load(packed, 0, target, 0, 100_000)], ended: $0) }
    XCTAssertEqual(taken.failure?.status, Status.io)
    XCTAssertEqual(device.streams.scratch.holdings.inUse, 0)
  }

  func testFilesThatShrankAreTold() throws {
    let device = try device()
    let content = sample(100_000)
    let path = try write(content)
    let raw = try device.streams.open(path: path, codec: HR_CODEC_NONE, byteLength: 0)
    let packedPath = try pack(content, 2)
    let packed = try device.streams.open(path: packedPath, codec: 2, byteLength: content.count)
    let target = try Buffer.makeShared(device: device, byteLength: content.count)
    truncate(path, 60_000)
    truncate(packedPath, 100)
    let short = wait { device.streams.start([load(raw, 50_000, target, 0, 20_000)], ended: $0) }
    XCTAssertEqual(short.failure?.status, Status.shortRead)
    XCTAssertEqual(
      short.failure?.message,
      "bytes [50000, 70000) were asked for and the file ended after 10000 of 20000; it is truncated or has shrunk")
    let changed = wait { device.streams.start([load(packed, 0, target, 0, 10)], ended: $0) }
    XCTAssertEqual(changed.failure?.status, Status.fileChanged)
    let there = wait { device.streams.start([load(raw, 0, target, 0, 60_000)], ended: $0) }
    XCTAssertNil(there.failure)
  }

  func testAFileThatShrinksMeanwhileIsAShortRead() throws {
    configure { $0.bytes_per_second = 4 << 20 }
    let device = try device()
    let path = try write(sample(4 << 20))
    let raw = try device.streams.open(path: path, codec: HR_CODEC_NONE, byteLength: 0)
    let target = try Buffer.makeShared(device: device, byteLength: 4 << 20)
    let end = wait({ device.streams.start([load(raw, 0, target, 0, 4 << 20)], ended: $0) }) { _ in
      usleep(100_000)
      truncate(path, 1000)
    }
    XCTAssertEqual(end.failure?.status, Status.shortRead)
    XCTAssertTrue(end.failure?.message.contains("ended after 1000 of 4194304") ?? false)
  }

  func testRangesOutsideContentAndBufferAreRefused() throws {
    let device = try device()
    let packed = try device.streams.open(path: pack(sample(100_000), 2), codec: 2, byteLength: 100_000)
    let target = try Buffer.makeShared(device: device, byteLength: 1000)
    for wrong in [load(packed, 99_999, target, 0, 2), load(packed, 0, target, 999, 2), load(packed, -1, target, 0, 1)] {
      var numbered = wrong
      numbered.request = 7
      let end = wait { device.streams.start([numbered], ended: $0) }
      XCTAssertEqual(end.failure?.status, Status.outOfRange)
      XCTAssertTrue(end.failure?.message.hasPrefix("request 7: bytes [") ?? false, end.failure?.message ?? "")
    }
  }

  func testAWrongLengthOfTheContentIsCorruptNotACrash() throws {
    let device = try device()
    let packed = try device.streams.open(path: pack(sample(100_000), 2), codec: 2, byteLength: 200_000)
    let target = try Buffer.makeShared(device: device, byteLength: 200_000)
    let end = wait { device.streams.start([load(packed, 0, target, 0, 200_000)], ended: $0) }
    XCTAssertEqual(end.failure?.status, Status.corrupt)
  }

  func testOpeningTellsWhatIsWrong() throws {
    let device = try device()
    let path = try write(sample(100))
    let packed = try pack(sample(100), 2)
    let cases: [(String, UInt32, hr_status)] = [
      (folder + "/missing", HR_CODEC_NONE, Status.io), (folder, HR_CODEC_NONE, Status.notAFile),
      (path, 2, Status.corrupt), (packed, 3, Status.corrupt), (path, 5, Status.invalid),
    ]
    for (path, codec, status) in cases {
      XCTAssertThrowsError(try device.streams.open(path: path, codec: codec, byteLength: 100)) {
        XCTAssertEqual(($0 as? Failure)?.status, status, "\(path) \(codec)")
      }
    }
    fault(STANDIN_IO_HANDLE, code: 24)
    XCTAssertThrowsError(try device.streams.open(path: path, codec: HR_CODEC_NONE, byteLength: 0)) {
      XCTAssertEqual(($0 as? Failure)?.status, Status.io)
    }
    let before = descriptors()
    for _ in 0..<50 { _ = try? device.streams.open(path: path, codec: 2, byteLength: 100) }
    XCTAssertLessThanOrEqual(descriptors(), before)
  }
}
#endif
