#if os(Linux)
import CHeadrace
import CStandIn
import Foundation
import Metal
import XCTest

@testable import HeadraceMetal

/// Files, devices and runs of the tests of streams and compression.
class StreamTestCase: XCTestCase {
  private(set) var folder = ""
  private var opened: [hr_handle] = []

  override func setUpWithError() throws {
    standin_set_faults(nil, 0)
    configure { _ in }
    folder = NSTemporaryDirectory() + "headrace-streams-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
  }

  override func tearDownWithError() throws {
    for handle in opened { XCTAssertEqual(hr_close(handle), Status.ok) }
    opened = []
    standin_set_faults(nil, 0)
    configure { _ in }
    try FileManager.default.removeItem(atPath: folder)
  }

  func configure(_ change: (inout standin_config) -> Void) {
    var config = standin_config()
    change(&config)
    standin_configure(&config)
  }

  func fault(
    _ call: Int, nth: UInt32 = 1, times: UInt32 = 1, code: Int32 = 0, limit: Int64 = -1, delayUs: UInt32 = 0
  ) {
    var fault = standin_fault(
      call: UInt32(call), nth: nth, times: times, code: code, limit: limit, delay_us: delayUs)
    standin_set_faults(&fault, 1)
  }

  /// A device that is closed with the test, or by ``closeDevice()``.
  func device(_ change: (inout hr_device_options) -> Void = { _ in }) throws -> Device {
    var options = hr_device_options()
    change(&options)
    var handle: hr_handle = 0
    var wake: Int32 = -1
    XCTAssertEqual(hr_device_open(0, &options, &handle, &wake, nil), Status.ok)
    opened.append(handle)
    return try handles.find(handle, as: Device.self)
  }

  /// Closes the device that was opened last.
  func closeDevice() throws { XCTAssertEqual(hr_close(try XCTUnwrap(opened.popLast())), Status.ok) }

  /// Bytes that shrink, and differ from place to place.
  func sample(_ count: Int) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: count + 8) { bytes, initialized in
      var word: UInt64 = 0x9e37_79b9_7f4a_7c15
      for start in stride(from: 0, to: count, by: 8) {
        word = word &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        UnsafeMutableRawBufferPointer(bytes).storeBytes(
          of: (word >> 5) & 0x0700_0f03_0001_ff3f, toByteOffset: start, as: UInt64.self)
      }
      initialized = count
    }
  }

  func write(_ bytes: [UInt8], _ name: String = "raw") throws -> String {
    let path = folder + "/" + name
    try Data(bytes).write(to: URL(fileURLWithPath: path))
    return path
  }

  /// Writes an MTLIO file without the library.
  func pack(_ bytes: [UInt8], _ codec: Int, chunk: Int = 65_536, _ name: String = "packed") throws -> String {
    let path = folder + "/" + name
    let method = try XCTUnwrap(MTLIOCompressionMethod(rawValue: codec))
    let context = try XCTUnwrap(MTLIOCreateCompressionContext(path, method, chunk))
    bytes.withUnsafeBytes { MTLIOCompressionContextAppendData(context, $0.baseAddress!, $0.count) }
    XCTAssertEqual(MTLIOFlushAndDestroyCompressionContext(context), .complete)
    return path
  }

  /// Starts work and waits for its end, at most 20 seconds.
  func wait(_ start: (@escaping Ended) -> any RunningWork, then: (any RunningWork) -> Void = { _ in }) -> RunEnd {
    let outcome = Outcome()
    let work = start { outcome.came($0) }
    then(work)
    guard let end = outcome.wait() else {
      XCTFail("no end after 20 s")
      return RunEnd(failure: Failure(Status.timedOut, "no end after 20 s"))
    }
    return end
  }

  func bytes(_ buffer: Buffer, _ range: Range<Int>) -> [UInt8] {
    let base = UnsafeRawPointer(bitPattern: UInt(buffer.metal.gpuAddress))! + buffer.offset
    return Array(UnsafeRawBufferPointer(start: base + range.lowerBound, count: range.count))
  }

  func counts() -> standin_counts {
    var counts = standin_counts()
    standin_live(&counts)
    return counts
  }

  /// Waits until `condition` holds, at most 10 seconds.
  func eventually(_ what: String, _ condition: () -> Bool) {
    let deadline = clockMs() + 10_000
    while !condition() {
      if clockMs() > deadline { return XCTFail(what) }
      usleep(2000)
    }
  }

  func descriptors() -> Int { (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? -1 }
}

extension Streams {
  /// Loads that run side by side.
  func start(_ loads: [StreamLoad], ended: @escaping Ended) -> any RunningWork { start([loads], ended: ended) }
}

/// The end of one run; a second one fails the test.
final class Outcome: Sendable {
  private let gate = Gate<RunEnd?>(nil)

  func came(_ end: RunEnd) {
    gate.withLock { state in
      XCTAssertNil(state, "ended twice")
      state = end
    }
    gate.broadcast()
  }

  func wait(ms: Double = 20_000) -> RunEnd? { gate.wait(until: { $0 }, timeoutMs: ms) }
}
#endif
