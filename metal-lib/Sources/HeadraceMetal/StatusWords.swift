import CHeadrace
import Metal

/// Where MTLIO writes what became of command buffers: a word for each that a queue may have in flight.
///
/// The word comes by another way than the command buffer's own `status`, so that the two can be compared.
final class StatusWords: @unchecked Sendable {  // A word is used by the command buffer that took it; the rest locks.
  /// Apple does not say how wide the status is that it writes.
  private static let stride = 16
  private static let unwritten = Int32(-1)

  private let buffer: any MTLBuffer
  private let free: Locked<Fifo<Int>>

  /// HR_OUT_OF_MEMORY.
  init(metal: any MTLDevice, count: Int) throws(Failure) {
    let length = count * Self.stride
    guard let buffer = metal.makeBuffer(length: length, options: .storageModeShared) else {
      throw Failure(Status.outOfMemory, "\(metal.name) has no \(length) bytes for the status of \(count) loads")
    }
    self.buffer = buffer
    var offsets = Fifo<Int>()
    for index in 0..<count { offsets.append(index * Self.stride) }
    free = Locked(offsets)
  }

  /// Has the status of `commandBuffer` written when it is over; nil where more are in flight than there are words.
  func follow(_ commandBuffer: any MTLIOCommandBuffer) -> Int? {
    // The one that has rested longest, so that nothing written late meets its next user.
    guard let offset = free.withLock({ $0.popFirst() }) else { return nil }
    buffer.contents().storeBytes(of: Self.unwritten, toByteOffset: offset, as: Int32.self)
    commandBuffer.copyStatus(buffer: buffer, offset: offset)
    return offset
  }

  /// Ends the use of a word. What it says, unless it is that all went well; nil too where nothing was written so far,
  /// since Apple does not say whether that comes before the completed handlers.
  func takeComplaint(_ offset: Int) -> Int32? {
    let word = buffer.contents().load(fromByteOffset: offset, as: Int32.self)
    free.withLock { $0.append(offset) }
    let isFine = [Self.unwritten, Int32(MTLIOStatus.pending.rawValue), Int32(MTLIOStatus.complete.rawValue)].contains(word)
    return isFine ? nil : word
  }
}
