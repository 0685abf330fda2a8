import CHeadrace
import Foundation
import Metal

/// One allocation that buffers are cut from: cheap to make many of, and resident as one.
final class Heap: Resource, @unchecked Sendable {  // MTLHeap may be used by any thread; the rest never changes.
  let metal: any MTLHeap
  let isPrivate: Bool
  private let device: Device

  /// Of at least `byteLength` bytes. HR_OUT_OF_RANGE for 0 and past the device's largest buffer, HR_OUT_OF_MEMORY.
  init(device: Device, byteLength: Int, isPrivate: Bool) throws(Failure) {
    let most = device.metal.maxBufferLength
    guard byteLength > 0, byteLength <= most else {
      throw Failure(Status.outOfRange, "a heap of \(byteLength) bytes, and the device allows 1 to \(most)")
    }
    let descriptor = MTLHeapDescriptor()
    descriptor.size = byteLength
    descriptor.storageMode = isPrivate ? .private : .shared
    // Buffers of a heap are not tracked by themselves; this has Metal order work on them as on any other.
    descriptor.hazardTrackingMode = .tracked
    guard let metal = device.metal.makeHeap(descriptor: descriptor) else {
      throw Failure(Status.outOfMemory, "\(device.metal.name) made no heap of \(byteLength) bytes")
    }
    self.metal = metal
    self.isPrivate = isPrivate
    self.device = device
    super.init(kind: .heap, device: device)
  }

  override class var kind: Kind { .heap }

  /// Zeroed memory out of the heap, which lives as long as it; the zeroing of private memory may still be under way.
  /// HR_INVALID where the storage differs from the heap's, HR_OUT_OF_MEMORY where no room is left.
  func makeBuffer(byteLength: Int, isPrivate: Bool) throws(Failure) -> Buffer {
    guard isPrivate == self.isPrivate else {
      throw Failure(
        Status.invalid, "a \(Self.name(isPrivate)) buffer of a heap that is \(Self.name(self.isPrivate))")
    }
    // Whole words, for the GPU zeroes by those; a buffer has at least one.
    guard let length = roundUp(max(1, byteLength), to: 16), length <= metal.size,
      let part = metal.makeBuffer(length: length, options: isPrivate ? .storageModePrivate : .storageModeShared)
    else {
      throw Failure(
        Status.outOfMemory,
        "no room for \(byteLength) bytes in a heap of \(metal.size), of which \(metal.usedSize) are in use and "
          + "\(metal.maxAvailableSize(alignment: device.pageSize)) in one piece")
    }
    if isPrivate {
      let zeroed = device.zeroing.start(part)
      return Buffer(device: device, metal: part, bytes: nil, byteLength: byteLength, isPrivate: true, zeroed: zeroed)
    }
    // What an earlier buffer left.
    let bytes = part.contents()
    memset(bytes, 0, length)
    return Buffer(device: device, metal: part, bytes: bytes, byteLength: byteLength)
  }

  private static func name(_ isPrivate: Bool) -> String { isPrivate ? "private" : "shared" }
}
