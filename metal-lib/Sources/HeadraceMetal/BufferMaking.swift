import CHeadrace
import Foundation
import Metal

extension Buffer {
  /// Zeroed memory that host and GPU see. HR_OUT_OF_RANGE, HR_OUT_OF_MEMORY.
  static func makeShared(device: Device, byteLength: Int) throws(Failure) -> Buffer {
    let length = try pages(byteLength, device)
    var address: UnsafeMutableRawPointer?
    let result = hr_map_memory(length, &address)
    guard result == 0, let address else {
      throw Failure(
        Status.outOfMemory, "a buffer of \(byteLength) bytes: \(errnoName(-result))", osErrno: -result)
    }
    let metal = device.metal.makeBuffer(bytesNoCopy: address, length: length, options: .storageModeShared) {
      pages, length in
      _ = hr_unmap(pages, length)
    }
    guard let metal else {
      _ = hr_unmap(address, length)
      throw Failure(Status.outOfMemory, "\(device.metal.name) made no shared buffer of \(length) bytes")
    }
    return Buffer(device: device, metal: metal, bytes: address, byteLength: byteLength)
  }

  /// Zeroed memory that the GPU alone sees; the zeroing may still be under way. HR_OUT_OF_RANGE, HR_OUT_OF_MEMORY.
  static func makePrivate(device: Device, byteLength: Int) throws(Failure) -> Buffer {
    let length = try pages(byteLength, device)
    guard let metal = device.metal.makeBuffer(length: length, options: .storageModePrivate) else {
      throw Failure(Status.outOfMemory, "\(device.metal.name) made no private buffer of \(length) bytes")
    }
    let zeroed = device.zeroing.start(metal)
    return Buffer(device: device, metal: metal, bytes: nil, byteLength: byteLength, isPrivate: true, zeroed: zeroed)
  }

  /// Whole pages, one for 0 bytes. HR_OUT_OF_RANGE past the largest buffer.
  private static func pages(_ byteLength: Int, _ device: Device) throws(Failure) -> Int {
    let most = device.metal.maxBufferLength
    guard byteLength <= most, let length = roundUp(max(1, byteLength), to: device.pageSize), length <= most else {
      throw Failure(Status.outOfRange, "a buffer of \(byteLength) bytes is over the \(most) that the device allows")
    }
    return length
  }

  /// A hint for a range of a mapping; nothing for other memory.
  func advise(_ advice: Int32, offset: Int, byteLength: Int) {
    guard let mapping, offset < self.byteLength else { return }
    // Relative to the first page of the mapping.
    let from = self.offset + offset
    let to = from + min(byteLength, self.byteLength - offset)
    if advice == HR_WILL_NEED { return mapping.prefetch(from: from, to: to) }
    mapping.advise(advice, from: from, to: to)
  }
}

/// Zeroes private memory by the GPU, which alone can write to it.
final class Zeroing: @unchecked Sendable {  // `queue` is used on `worker` alone, the rest never changes.
  private let metal: any MTLDevice
  /// Making a command buffer may wait for others to complete, so a caller's thread cannot do it.
  private let worker = DispatchQueue(label: "headrace.zeroing")
  private var queue: (any MTLCommandQueue)?

  init(metal: any MTLDevice) { self.metal = metal }

  /// The latch opens when all bytes of `buffer` are zero, or with HR_DEVICE_FAILED.
  func start(_ buffer: any MTLBuffer) -> Latch {
    let latch = Latch()
    let target = Unchecked(buffer)
    worker.async { [self] in
      autoreleasepool { fill(target.value, latch) }
    }
    return latch
  }

  private func fill(_ buffer: any MTLBuffer, _ latch: Latch) {
    if queue == nil { queue = metal.makeCommandQueue() }
    guard let commands = queue?.makeCommandBuffer(), let encoder = commands.makeBlitCommandEncoder() else {
      return latch.open(Failure(Status.deviceFailed, "\(metal.name) made no commands to zero private memory"))
    }
    let length = buffer.length
    encoder.fill(buffer: buffer, range: 0..<length, value: 0)
    encoder.endEncoding()
    commands.addCompletedHandler { [self] done in
      let failure = done.error.map { Failure.metal("zeroing \(length) bytes of private memory", $0) }
      // After a failure a command queue may take no more work.
      if failure != nil { worker.async { self.queue = nil } }
      latch.open(failure)
    }
    commands.commit()
  }
}

/// Carries a Metal object to another thread: Metal's objects may go there, and their protocols do not say so.
struct Unchecked<Value>: @unchecked Sendable {
  let value: Value
  init(_ value: Value) { self.value = value }
}

extension Buffer {
  /// Zeroed memory of a device or a heap. HR_INVALID for another parent; else as ``makeShared(device:byteLength:)``.
  static func make(in parent: Resource, device: Device, byteLength: Int, isPrivate: Bool) throws(Failure) -> Buffer {
    if let heap = parent as? Heap { return try heap.makeBuffer(byteLength: byteLength, isPrivate: isPrivate) }
    guard parent is Device else {
      throw Failure(Status.invalid, "the parent is \(parent.kind.named), and a device or a heap is needed")
    }
    return isPrivate
      ? try makePrivate(device: device, byteLength: byteLength) : try makeShared(device: device, byteLength: byteLength)
  }
}
