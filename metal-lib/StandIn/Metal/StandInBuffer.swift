// Buffers: memory of their own, of the caller (no copy), or a part of a heap.
import CStandIn
import Foundation

public final class StandInBuffer: NSObject, MTLBuffer, @unchecked Sendable {
  // Sendable because all is constant but the label, which only the program that sets it reads.
  private enum Memory {
    case owned(Allocation)
    case borrowed((@Sendable (UnsafeMutableRawPointer, Int) -> Void)?)
    case part(StandInHeap, Range<Int>)
  }

  let owner: StandInDevice
  /// The bytes, of private buffers too. Valid as long as the buffer lives.
  let bytes: UnsafeMutableRawPointer
  public let length: Int
  public let resourceOptions: MTLResourceOptions
  public var label: String?
  private let memory: Memory

  private init(
    owner: StandInDevice, bytes: UnsafeMutableRawPointer, length: Int, options: MTLResourceOptions, memory: Memory
  ) {
    self.owner = owner
    self.bytes = bytes
    self.length = length
    self.memory = memory
    resourceOptions = options
    super.init()
    standin_count(UInt32(STANDIN_LIVE_BUFFERS), 1)
    account(1)
  }

  deinit {
    standin_count(UInt32(STANDIN_LIVE_BUFFERS), -1)
    account(-1)
    switch memory {
    case .owned: break
    case .borrowed(let deallocator): deallocator?(bytes, length)
    case .part(let heap, let range): heap.release(range)
    }
  }

  /// Memory of its own, zeroed; nil where the system has none.
  static func own(_ device: StandInDevice, length: Int, options: MTLResourceOptions) -> StandInBuffer? {
    guard let allocation = Allocation(length: length) else { return nil }
    return StandInBuffer(
      owner: device, bytes: allocation.bytes, length: length, options: options, memory: .owned(allocation))
  }

  static func borrow(
    _ device: StandInDevice, bytes: UnsafeMutableRawPointer, length: Int, options: MTLResourceOptions,
    deallocator: (@Sendable (UnsafeMutableRawPointer, Int) -> Void)?
  ) -> StandInBuffer {
    StandInBuffer(owner: device, bytes: bytes, length: length, options: options, memory: .borrowed(deallocator))
  }

  static func part(
    of heap: StandInHeap, range: Range<Int>, length: Int, options: MTLResourceOptions
  ) -> StandInBuffer {
    StandInBuffer(
      owner: heap.owner, bytes: heap.bytes + range.lowerBound, length: length, options: options,
      memory: .part(heap, range))
  }

  /// The stand-in's object behind a buffer that `call` was given. Ends the process where it is another device's.
  static func of(_ buffer: any MTLBuffer, on device: StandInDevice, _ call: String) -> StandInBuffer {
    guard let buffer = buffer as? StandInBuffer, buffer.owner === device else {
      trap("\(call): the buffer belongs to another device")
    }
    return buffer
  }

  private func account(_ sign: Int) {
    if case .part = memory { return }
    owner.account(sign * allocatedSize)
  }

  public var device: any MTLDevice { owner }
  public var cpuCacheMode: MTLCPUCacheMode { resourceOptions.cpuCacheMode }
  public var storageMode: MTLStorageMode { resourceOptions.storageMode }
  public var gpuAddress: UInt64 { UInt64(UInt(bitPattern: bytes)) }

  public var allocatedSize: Int {
    if case .part(_, let range) = memory { return range.count }
    return roundedUp(length, to: pageSize)
  }

  /// Buffers of the device are tracked unless they say otherwise, those of heaps untracked.
  public var hazardTrackingMode: MTLHazardTrackingMode {
    if case .part(let heap, _) = memory { return heap.hazardTrackingMode }
    return resourceOptions.hazardTrackingMode == .untracked ? .untracked : .tracked
  }

  public var heap: (any MTLHeap)? {
    if case .part(let heap, _) = memory { return heap }
    return nil
  }

  public var heapOffset: Int {
    if case .part(_, let range) = memory { return range.lowerBound }
    return 0
  }

  public func contents() -> UnsafeMutableRawPointer {
    if storageMode == .private { trap("contents() of a private buffer") }
    return bytes
  }
}

/// Zeroed memory that ends with the object.
final class Allocation: @unchecked Sendable {
  // Sendable because it only owns the address.
  let bytes: UnsafeMutableRawPointer
  /// Nil where the memory came from the C allocator.
  private let mapped: (start: UnsafeMutableRawPointer, length: Int)?

  /// Aligned to the pretended page. Small ones come from the C allocator, so that an address sanitizer sees
  /// accesses beyond their end.
  init?(length: Int) {
    if length < 1 << 20 {
      var pointer: UnsafeMutableRawPointer?
      guard posix_memalign(&pointer, pageSize, length) == 0, let pointer else { return nil }
      memset(pointer, 0, length)
      bytes = pointer
      mapped = nil
      return
    }
    // One page more, because this machine's mappings may start at any smaller page.
    let total = roundedUp(length, to: pageSize) + pageSize
    guard let start = mmap(nil, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), start != MAP_FAILED
    else { return nil }
    bytes = UnsafeMutableRawPointer(bitPattern: UInt(roundedUp(Int(bitPattern: start), to: pageSize))) ?? start
    mapped = (start, total)
  }

  deinit {
    if let mapped {
      munmap(mapped.start, mapped.length)
    } else {
      free(bytes)
    }
  }
}

extension StandInDevice {
  public func makeBuffer(length: Int, options: MTLResourceOptions) -> (any MTLBuffer)? {
    checkStorage(options, "makeBuffer(length:options:)")
    if fails(STANDIN_MAKE_BUFFER) || isRemoved { return nil }
    guard length > 0, length <= maxBufferLength else { return nil }
    return StandInBuffer.own(self, length: length, options: options)
  }

  public func makeBuffer(bytes pointer: UnsafeRawPointer, length: Int, options: MTLResourceOptions) -> (any MTLBuffer)? {
    if options.storageMode != .shared { trap("makeBuffer(bytes:length:options:): the memory must be shared") }
    guard let buffer = makeBuffer(length: length, options: options) else { return nil }
    buffer.contents().copyMemory(from: pointer, byteCount: length)
    return buffer
  }

  public func makeBuffer(
    bytesNoCopy pointer: UnsafeMutableRawPointer, length: Int, options: MTLResourceOptions,
    deallocator: (@Sendable (UnsafeMutableRawPointer, Int) -> Void)?
  ) -> (any MTLBuffer)? {
    checkStorage(options, "makeBuffer(bytesNoCopy:length:options:deallocator:)")
    if fails(STANDIN_MAKE_BUFFER) || isRemoved { return nil }
    guard length > 0, length <= maxBufferLength, length % pageSize == 0, Int(bitPattern: pointer) % pageSize == 0,
      options.storageMode == .shared, standin_in_one_mapping(pointer, UInt64(length)) != 0
    else { return nil }
    return StandInBuffer.borrow(self, bytes: pointer, length: length, options: options, deallocator: deallocator)
  }

  private func checkStorage(_ options: MTLResourceOptions, _ call: String) {
    if options.storageMode == .memoryless { trap("\(call): buffers cannot be memoryless") }
  }
}
