// Launches of kernels: what was encoded, and how it runs.
import CStandIn
import Foundation

/// One launch, as it was when it was encoded.
struct Launch: @unchecked Sendable {  // Constant; the functions that it points to may run on any thread.
  let kernel: standin_kernel
  let name: String
  let grid: MTLSize
  let group: MTLSize

  func run(
    _ buffers: [StandInBuffer], offsets: [(index: Int, offset: Int)], inline: [(index: Int, bytes: [UInt8])]
  ) throws(MTLCommandBufferError) {
    var kernel = kernel
    var launch = standin_launch()
    launch.grid = (UInt32(grid.width), UInt32(grid.height), UInt32(grid.depth))
    launch.group = (UInt32(group.width), UInt32(group.height), UInt32(group.depth))
    launch.groups = (
      UInt32((grid.width + group.width - 1) / group.width), UInt32((grid.height + group.height - 1) / group.height),
      UInt32((grid.depth + group.depth - 1) / group.depth)
    )
    let constants = inline.map { ConstantMemory($0.bytes) }
    withUnsafeMutableBytes(of: &launch.buffers) { raw in
      let slots = raw.bindMemory(to: UnsafeMutableRawPointer?.self)
      for (place, buffer) in zip(offsets, buffers) { slots[place.index] = buffer.bytes + place.offset }
      for (place, memory) in zip(inline, constants) { slots[place.index] = memory.address }
    }
    var message = [CChar](repeating: 0, count: 256)
    let status = withExtendedLifetime(constants) { standin_run(&kernel, &launch, &message) }
    if status == 0 { return }
    // A GPU whose threads wait for ever is stopped after a while.
    FileHandle.standardError.write(Data("Metal stand-in: kernel \(name): \(text(of: message))\n".utf8))
    throw MTLCommandBufferError(.timeout)
  }
}

/// Bytes passed by value, at an address that suits any type.
private final class ConstantMemory {
  let address: UnsafeMutableRawPointer

  init(_ bytes: [UInt8]) {
    address = UnsafeMutableRawPointer.allocate(byteCount: bytes.count, alignment: 64)
    address.copyMemory(from: bytes, byteCount: bytes.count)
  }

  deinit { address.deallocate() }
}
