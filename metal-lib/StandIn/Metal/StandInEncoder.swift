// Encoders: what they record, the command buffer runs after it was committed.
import Foundation

/// What all encoders share. Used by one thread at a time, as Apple's are.
public class StandInEncoder: NSObject, @unchecked Sendable {
  // Sendable as far as its users keep to that; Metal's own rule.
  let commandBuffer: StandInCommandBuffer
  public var label: String?
  private var hasEnded = false

  init(_ commandBuffer: StandInCommandBuffer) {
    self.commandBuffer = commandBuffer
    commandBuffer.openEncoder()
    super.init()
  }

  deinit {
    if !hasEnded { trap("an encoder was released without endEncoding") }
  }

  var owner: StandInDevice { commandBuffer.owner }
  public var device: any MTLDevice { commandBuffer.owner }

  public func endEncoding() {
    checkOpen("endEncoding")
    hasEnded = true
    commandBuffer.closeEncoder()
  }

  public func insertDebugSignpost(_ string: String) {}
  public func pushDebugGroup(_ string: String) {}
  public func popDebugGroup() {}

  /// Ends the process where `call` comes after endEncoding.
  func checkOpen(_ call: String) {
    if hasEnded { trap("\(call) after endEncoding") }
  }

  /// Records one command, see StandInCommandBuffer.append.
  func record(
    _ call: String, using buffers: [StandInBuffer],
    _ work: @escaping @Sendable ([StandInBuffer]) throws(MTLCommandBufferError) -> Void
  ) {
    checkOpen(call)
    commandBuffer.append(using: buffers, work)
  }
}

final class StandInBlitEncoder: StandInEncoder, MTLBlitCommandEncoder, @unchecked Sendable {
  func copy(
    from sourceBuffer: any MTLBuffer, sourceOffset: Int, to destinationBuffer: any MTLBuffer, destinationOffset: Int,
    size: Int
  ) {
    let source = StandInBuffer.of(sourceBuffer, on: owner, "copy")
    let target = StandInBuffer.of(destinationBuffer, on: owner, "copy")
    check("copy: source", source, sourceOffset, size)
    check("copy: destination", target, destinationOffset, size)
    if source === target, abs(sourceOffset - destinationOffset) < size {
      trap("copy: offsets \(sourceOffset) and \(destinationOffset) of one buffer overlap over \(size) bytes")
    }
    record("copy", using: [source, target]) { buffers in
      (buffers[1].bytes + destinationOffset).copyMemory(from: buffers[0].bytes + sourceOffset, byteCount: size)
    }
  }

  func fill(buffer: any MTLBuffer, range: Range<Int>, value: UInt8) {
    let target = StandInBuffer.of(buffer, on: owner, "fill")
    check("fill:", target, range.lowerBound, range.count)
    record("fill", using: [target]) { buffers in
      memset(buffers[0].bytes + range.lowerBound, Int32(value), range.count)
    }
  }

  // Command buffers of a queue run one after the other here, so fences order nothing more.
  func updateFence(_ fence: any MTLFence) {
    checkFence(fence, "updateFence")
  }

  func waitForFence(_ fence: any MTLFence) {
    checkFence(fence, "waitForFence")
  }

  private func checkFence(_ fence: any MTLFence, _ call: String) {
    checkOpen(call)
    if (fence as? StandInFence)?.owner !== owner { trap("\(call): the fence belongs to another device") }
  }

  private func check(_ what: String, _ buffer: StandInBuffer, _ offset: Int, _ size: Int) {
    if size <= 0 { trap("\(what) size \(size) must be above 0") }
    if offset < 0 || offset > buffer.length || size > buffer.length - offset {
      trap("\(what) bytes \(offset) to \(offset &+ size) are outside the buffer's \(buffer.length)")
    }
    // Documented for macOS, though Apple's GPUs were seen to take any.
    if offset % 4 != 0 || size % 4 != 0 { trap("\(what) offset \(offset) and size \(size) must be multiples of 4") }
  }
}
