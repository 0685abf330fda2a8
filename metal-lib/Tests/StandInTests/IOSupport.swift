import CStandIn
import Foundation
import XCTest

@testable import Metal

/// Files and devices of the MTLIO tests.
class IOTestCase: XCTestCase {
  private(set) var folder = URL(fileURLWithPath: "/")
  private(set) var device: (any MTLDevice)!

  override func setUpWithError() throws {
    standin_set_faults(nil, 0)
    configure { _ in }
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("headrace-io-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  }

  override func tearDownWithError() throws {
    standin_set_faults(nil, 0)
    device = nil
    configure { _ in }
    device = nil
    try FileManager.default.removeItem(at: folder)
  }

  /// Takes a new device with this configuration.
  func configure(_ change: (inout standin_config) -> Void) {
    var config = standin_config()
    change(&config)
    standin_configure(&config)
    device = MTLCreateSystemDefaultDevice()
  }

  func fault(_ call: Int, nth: UInt32 = 1, times: UInt32 = 1, code: Int32 = 0, delayUs: UInt32 = 0) {
    var fault = standin_fault(
      call: UInt32(call), nth: nth, times: times, code: code, limit: -1, delay_us: delayUs)
    standin_set_faults(&fault, 1)
  }

  /// Bytes that repeat enough to shrink, and differ everywhere.
  func sample(_ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: ($0 / 7) &* 31 ^ ($0 >> 9)) }
  }

  func file(_ bytes: [UInt8], _ name: String = "raw") throws -> URL {
    let url = folder.appendingPathComponent(name)
    try Data(bytes).write(to: url)
    return url
  }

  func compressed(_ bytes: [UInt8], _ method: MTLIOCompressionMethod, chunk: Int = 65_536) throws -> URL {
    let url = folder.appendingPathComponent("packed-\(method.rawValue)-\(chunk)")
    let context = try XCTUnwrap(MTLIOCreateCompressionContext(url.path, method, chunk))
    var done = 0
    // Uneven appends, so that chunks and appends do not coincide.
    while done < bytes.count {
      let part = min(10_007, bytes.count - done)
      bytes[done..<done + part].withUnsafeBytes { data in
        MTLIOCompressionContextAppendData(context, data.baseAddress!, part)
      }
      done += part
    }
    XCTAssertEqual(MTLIOFlushAndDestroyCompressionContext(context), .complete)
    return url
  }

  func queue(_ change: (MTLIOCommandQueueDescriptor) -> Void = { _ in }) throws -> any MTLIOCommandQueue {
    let descriptor = MTLIOCommandQueueDescriptor()
    change(descriptor)
    return try device.makeIOCommandQueue(descriptor: descriptor)
  }

  func buffer(_ length: Int) throws -> any MTLBuffer {
    try XCTUnwrap(device.makeBuffer(length: length, options: .storageModeShared))
  }

  func bytes(_ buffer: any MTLBuffer, _ range: Range<Int>) -> [UInt8] {
    Array(UnsafeRawBufferPointer(start: buffer.contents() + range.lowerBound, count: range.count))
  }

  func counts() -> standin_counts {
    var counts = standin_counts()
    standin_live(&counts)
    return counts
  }
}

/// Counts what it hands out.
final class CountingAllocator: NSObject, MTLIOScratchBufferAllocator, @unchecked Sendable {
  private final class Scratch: NSObject, MTLIOScratchBuffer {
    let buffer: any MTLBuffer
    init(_ buffer: any MTLBuffer) { self.buffer = buffer }
  }
  private let device: any MTLDevice
  let sizes = Guarded<[Int]>([])

  init(_ device: any MTLDevice) { self.device = device }

  func makeScratchBuffer(minimumSize: Int) -> (any MTLIOScratchBuffer)? {
    sizes.withLock { $0.append(minimumSize) }
    return device.makeBuffer(length: minimumSize, options: .storageModeShared).map(Scratch.init)
  }
}
