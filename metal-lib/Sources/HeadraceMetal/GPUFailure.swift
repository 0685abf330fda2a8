import CHeadrace
import Foundation
import Metal

/// Why a command buffer has failed, and what that means for the device.
struct GPUFailure: Sendable {
  let failure: Failure
  /// The GPU is gone for good.
  let isFinal: Bool
  /// The same work may succeed: it was stopped for its time, for memory that was not there, or for the sake of others.
  let mayRetry: Bool

  init(_ error: any Error, device: String) {
    let error = error as NSError
    let isMetal = error.domain == MTLCommandBufferErrorDomain
    let code = isMetal ? MTLCommandBufferError.Code(rawValue: UInt(bitPattern: error.code)) : nil
    isFinal = code == .deviceRemoved
    mayRetry = code == .timeout || code == .pageFault || code == .internal
    let name = isMetal ? Self.names[error.code].map { " (\($0))" } ?? "" : ""
    failure = Failure(
      isFinal ? Status.deviceLost : Status.deviceFailed,
      "GPU work on \(device) failed: \(error.domain) \(error.code)\(name): \(error.localizedDescription)")
  }

  /// Of MTLCommandBufferError's codes. A table, since SDKs differ in which of them they have.
  private static let names: [Int: String] = [
    1: "internal", 2: "timeout", 3: "pageFault", 4: "accessRevoked", 7: "notPermitted", 8: "outOfMemory", 9: "invalidResource",
    10: "memoryless", 11: "deviceRemoved", 12: "stackOverflow",
  ]
}
