import CStandIn
import Foundation
import XCTest

@testable import Metal

/// A device of its own for each test, with faults and configuration as at the start, and a look at what it left.
class StandInTestCase: XCTestCase {
  private var before = standin_counts()

  override func setUp() {
    configure { _ in }
    standin_set_faults(nil, 0)
    standin_live(&before)
  }

  override func tearDown() {
    standin_set_faults(nil, 0)
    configure { _ in }
    // Handlers of the last command buffer may still be letting go of it, as those of the test before may have been.
    let left = within(5) { noMore(liveCounts(), than: self.before) }
    XCTAssertTrue(left, "live objects: \(liveCounts()), before \(before)")
  }

  func configure(_ change: (inout standin_config) -> Void) {
    var config = standin_config()
    change(&config)
    standin_configure(&config)
  }

  func fault(_ call: Int, nth: UInt32 = 1, times: UInt32 = 1, code: Int32 = 0, delayUs: UInt32 = 0) {
    let fault = standin_fault(
      call: UInt32(call), nth: nth, times: times, code: code, limit: -1, delay_us: delayUs)
    withUnsafePointer(to: fault) { standin_set_faults($0, 1) }
  }

  func makeDevice() throws -> any MTLDevice {
    try XCTUnwrap(MTLCreateSystemDefaultDevice())
  }
}

func liveCounts() -> standin_counts {
  var counts = standin_counts()
  standin_live(&counts)
  return counts
}

/// Whether there is of nothing more than in `right`.
func noMore(_ left: standin_counts, than right: standin_counts) -> Bool {
  withUnsafeBytes(of: left) { left in
    withUnsafeBytes(of: right) { right in
      zip(left.bindMemory(to: UInt64.self), right.bindMemory(to: UInt64.self)).allSatisfy { $0 <= $1 }
    }
  }
}

/// True as soon as `condition` is, false where it is not within `seconds`.
func within(_ seconds: Double, _ condition: () -> Bool) -> Bool {
  let end = hostSeconds() + seconds
  while !condition() {
    if hostSeconds() > end { return false }
    usleep(500)
  }
  return true
}

extension MTLBuffer {
  func fillBytes(_ value: UInt8) {
    memset(contents(), Int32(value), length)
  }

  var allBytes: [UInt8] {
    Array(UnsafeRawBufferPointer(start: contents(), count: length))
  }
}

/// Runs one test in a process of its own, this test program started again, with `value` in the variable `name`: the
/// signal that ended it, 0 for none, and what it wrote to standard error.
func runAgain(_ test: String, _ name: String, _ value: String) throws -> (signal: Int32, text: String) {
  let process = Process()
  process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
  process.arguments = ["StandInTests.\(test)"]
  // Without the backtraces that `swift test` switches on: they take long, and hang under the thread sanitizer.
  process.environment = ProcessInfo.processInfo.environment.merging([name: value, "SWIFT_BACKTRACE": "enable=no"]) { $1 }
  let errors = Pipe()
  process.standardError = errors
  process.standardOutput = FileHandle.nullDevice
  try process.run()
  let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
  process.waitUntilExit()
  return (process.terminationReason == .uncaughtSignal ? process.terminationStatus : 0, text)
}
