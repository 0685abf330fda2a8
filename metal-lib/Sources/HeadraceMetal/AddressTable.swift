import CHeadrace
import Metal

extension Buffer {
  /// A table of at most so many addresses.
  static let maxTableEntries = 1 << 20

  /// A shared buffer of 64-bit GPU addresses, little-endian: `buffers[i]` plus `offsets[i]` bytes. Kernels index it and
  /// follow the addresses; work that uses it uses the buffers. They may not be tables themselves.
  ///
  /// HR_INVALID for no buffers, too many, or a table among them; HR_OUT_OF_RANGE for an offset at or past the end of
  /// its buffer; HR_OUT_OF_MEMORY.
  static func makeAddressTable(device: Device, buffers: [Buffer], offsets: [Int]) throws(Failure) -> Buffer {
    guard buffers.count == offsets.count, (1...maxTableEntries).contains(buffers.count) else {
      throw Failure(
        Status.invalid,
        "an address table of \(buffers.count) buffers and \(offsets.count) offsets; 1 to \(maxTableEntries) are allowed")
    }
    for (index, buffer) in buffers.enumerated() {
      guard buffer.owner === device else {
        throw Failure(Status.invalid, "buffer \(index) of an address table belongs to another device")
      }
      guard buffer.table.isEmpty else {
        throw Failure(Status.invalid, "buffer \(index) of an address table is an address table itself")
      }
      guard offsets[index] >= 0, offsets[index] < max(1, buffer.byteLength) else {
        throw Failure(
          Status.outOfRange,
          "offset \(offsets[index]) of entry \(index) is outside its buffer of \(buffer.byteLength) bytes")
      }
    }
    let byteLength = buffers.count * MemoryLayout<UInt64>.stride
    let memory = try makeShared(device: device, byteLength: byteLength)
    guard let bytes = memory.bytes else {
      throw Failure(Status.deviceFailed, "the host cannot see a shared buffer of \(byteLength) bytes")
    }
    for (index, buffer) in buffers.enumerated() {
      let address = buffer.metal.gpuAddress + UInt64(buffer.offset + offsets[index])
      bytes.storeBytes(of: address.littleEndian, toByteOffset: index * MemoryLayout<UInt64>.stride, as: UInt64.self)
    }
    return Buffer(
      device: device, metal: memory.metal, bytes: bytes, byteLength: byteLength, isWritable: false, table: buffers)
  }
}
