import CStandIn
import Foundation
import XCTest

@testable import Metal

final class IOCompressionTests: IOTestCase {
  static let methods: [MTLIOCompressionMethod] = [.zlib, .lzfse, .lz4, .lzma, .lzBitmap]

  private func load(_ handle: any MTLIOFileHandle, _ range: Range<Int>, _ target: any MTLBuffer) throws -> MTLIOStatus {
    let commandBuffer = try queue().makeCommandBuffer()
    commandBuffer.load(target, offset: 0, size: range.count, sourceHandle: handle, sourceHandleOffset: range.lowerBound)
    commandBuffer.commit()
    commandBuffer.waitUntilCompleted()
    return commandBuffer.status
  }

  func testEveryMethodAndChunkSizeGivesBackAnyRange() throws {
    let content = sample(1_200_001)
    let target = try buffer(content.count)
    for method in Self.methods {
      for chunk in [4096, 65_536, 1 << 20] {
        let url = try compressed(content, method, chunk: chunk)
        let size = try XCTUnwrap(FileManager.default.attributesOfItem(atPath: url.path)[.size] as? Int)
        XCTAssertLessThan(size, content.count * 2 / 3, "\(method) \(chunk)")
        let handle = try device.makeIOFileHandle(url: url, compressionMethod: method)
        for range in [0..<content.count, 1..<2, chunk - 1..<chunk + 1, chunk..<2 * chunk, 1_200_000..<1_200_001] {
          let range = range.clamped(to: 0..<content.count)
          XCTAssertEqual(try load(handle, range, target), .complete, "\(method) \(chunk) \(range)")
          XCTAssertEqual(bytes(target, 0..<range.count), Array(content[range]), "\(method) \(chunk) \(range)")
        }
        XCTAssertEqual(try load(handle, 1_200_000..<1_200_002, target), .error)
      }
    }
  }

  func testBytesThatDoNotShrinkAreStoredAsTheyAre() throws {
    var generator = SystemRandomNumberGenerator()
    let content = (0..<100_000).map { _ in UInt8.random(in: 0...255, using: &generator) }
    let target = try buffer(content.count)
    for method in Self.methods {
      let url = try compressed(content, method)
      let handle = try device.makeIOFileHandle(url: url, compressionMethod: method)
      XCTAssertEqual(try load(handle, 0..<content.count, target), .complete)
      XCTAssertEqual(bytes(target, 0..<content.count), content)
    }
  }

  func testOtherFilesAndOtherMethodsAreRefusedWithTheTextSeen() throws {
    let text = "Failed to create compression context because file was not compressed with MTLIOCompressionContext"
    let url = try compressed(sample(100_000), .lz4)
    let raw = try file(sample(100_000))
    for (url, method) in [(url, MTLIOCompressionMethod.zlib), (raw, .lz4)] {
      XCTAssertThrowsError(try device.makeIOFileHandle(url: url, compressionMethod: method)) {
        XCTAssertEqual(($0 as NSError).localizedDescription, text)
      }
    }
  }

  func testDamagedFilesAreErrorsNeverCrashes() throws {
    let content = sample(300_000)
    let target = try buffer(content.count)
    for method in Self.methods {
      let whole = try Data(contentsOf: compressed(content, method, chunk: 16_384))
      for step in 0..<40 {
        var damaged = whole
        let place = whole.count * step / 40
        damaged[place] ^= 0xff
        if step % 4 == 3 { damaged = damaged.prefix(place) }
        let url = folder.appendingPathComponent("damaged-\(method.rawValue)-\(step)")
        try damaged.write(to: url)
        guard let handle = try? device.makeIOFileHandle(url: url, compressionMethod: method) else { continue }
        _ = try load(handle, 0..<content.count, target)
      }
    }
  }

  func testScratchMemoryIsAskedForEachCompressedLoad() throws {
    let content = sample(400_000)
    let handle = try device.makeIOFileHandle(url: compressed(content, .lz4), compressionMethod: .lz4)
    let allocator = CountingAllocator(device)
    let commandBuffer = try queue { $0.scratchBufferAllocator = allocator }.makeCommandBuffer()
    let target = try buffer(400_000)
    for part in 0..<4 {
      commandBuffer.load(
        target, offset: part * 100_000, size: 100_000, sourceHandle: handle, sourceHandleOffset: part * 100_000)
    }
    commandBuffer.commit()
    commandBuffer.waitUntilCompleted()
    XCTAssertEqual(allocator.sizes.withLock { $0.count }, 4)
    XCTAssertEqual(bytes(target, 0..<content.count), content)
  }

  func testAContextThatCannotBeIsNilWithErrno() {
    XCTAssertNil(MTLIOCreateCompressionContext(folder.path + "/no/such/folder", .lz4, 65_536))
    XCTAssertEqual(errno, ENOENT)
    XCTAssertNil(MTLIOCreateCompressionContext(folder.path + "/file", .lz4, 0))
    XCTAssertEqual(MTLIOCompressionContextDefaultChunkSize(), 65_536)
  }

  func testAFailedFlushIsTold() throws {
    let context = try XCTUnwrap(MTLIOCreateCompressionContext(folder.path + "/file", .lz4, 65_536))
    fault(STANDIN_COMPRESS, code: 28)
    XCTAssertEqual(MTLIOFlushAndDestroyCompressionContext(context), .error)
  }

  func testAnUnflushedFileIsNone() throws {
    let path = folder.path + "/file"
    let context = try XCTUnwrap(MTLIOCreateCompressionContext(path, .lz4, 4096))
    sample(100_000).withUnsafeBytes { MTLIOCompressionContextAppendData(context, $0.baseAddress!, $0.count) }
    let url = URL(fileURLWithPath: path)
    XCTAssertThrowsError(try device.makeIOFileHandle(url: url, compressionMethod: .lz4))
    XCTAssertEqual(MTLIOFlushAndDestroyCompressionContext(context), .complete)
    XCTAssertNoThrow(try device.makeIOFileHandle(url: url, compressionMethod: .lz4))
  }
}
