// Heaps: one allocation that buffers are cut from. What a part holds at first is not defined, so it is filled with
// bytes that no test takes for zeros.
import CStandIn
import Foundation

public final class StandInHeap: NSObject, MTLHeap, @unchecked Sendable {
  // Sendable because the parts in use are behind `used`; the rest is constant but the label.
  let owner: StandInDevice
  let bytes: UnsafeMutableRawPointer
  public let size: Int
  public let type: MTLHeapType
  public let resourceOptions: MTLResourceOptions
  public var label: String?
  private let allocation: Allocation
  /// Ranges in use, in order. Those of a placement heap may overlap.
  private let used = Guarded([Range<Int>]())

  init?(device: StandInDevice, descriptor: MTLHeapDescriptor) {
    size = roundedUp(descriptor.size, to: pageSize)
    guard let allocation = Allocation(length: size) else { return nil }
    self.allocation = allocation
    bytes = allocation.bytes
    owner = device
    type = descriptor.type
    // Untracked unless the descriptor asks for tracking.
    resourceOptions = MTLResourceOptions(
      descriptor.cpuCacheMode, descriptor.storageMode,
      descriptor.hazardTrackingMode == .tracked ? .tracked : .untracked)
    super.init()
    standin_count(UInt32(STANDIN_LIVE_HEAPS), 1)
    device.account(size)
  }

  deinit {
    standin_count(UInt32(STANDIN_LIVE_HEAPS), -1)
    owner.account(-size)
  }

  public var device: any MTLDevice { owner }
  public var storageMode: MTLStorageMode { resourceOptions.storageMode }
  public var cpuCacheMode: MTLCPUCacheMode { resourceOptions.cpuCacheMode }
  public var hazardTrackingMode: MTLHazardTrackingMode { resourceOptions.hazardTrackingMode }
  public var allocatedSize: Int { size }
  public var currentAllocatedSize: Int { size }
  public var usedSize: Int { used.withLock { $0.reduce(0) { $0 + $1.count } } }

  public func maxAvailableSize(alignment: Int) -> Int {
    if alignment <= 0 || alignment & (alignment - 1) != 0 { trap("maxAvailableSize: alignment \(alignment) is no power of 2") }
    return used.withLock { Self.gaps($0, size) }.map { $0.upperBound - min($0.upperBound, roundedUp($0.lowerBound, to: alignment)) }
      .max() ?? 0
  }

  public func makeBuffer(length: Int, options: MTLResourceOptions) -> (any MTLBuffer)? {
    if type != .automatic { trap("makeBuffer(length:options:) of a heap that is not automatic") }
    check(options)
    if fails(STANDIN_MAKE_BUFFER) || length <= 0 || length > size { return nil }
    let need = owner.heapBufferSizeAndAlign(length: length, options: options)
    let range: Range<Int>? = used.withLock { used in
      for gap in Self.gaps(used, size) {
        let start = roundedUp(gap.lowerBound, to: need.align)
        if start + need.size <= gap.upperBound {
          let range = start..<start + need.size
          Self.insert(range, into: &used)
          return range
        }
      }
      return nil
    }
    return range.map { part($0, length, options) }
  }

  public func makeBuffer(length: Int, options: MTLResourceOptions, offset: Int) -> (any MTLBuffer)? {
    if type != .placement { trap("makeBuffer(length:options:offset:) of a heap that is no placement heap") }
    check(options)
    if fails(STANDIN_MAKE_BUFFER) || length <= 0 { return nil }
    let need = owner.heapBufferSizeAndAlign(length: length, options: options)
    if offset < 0 || offset % need.align != 0 { trap("heap offset \(offset) is no multiple of \(need.align)") }
    if offset + need.size > size { trap("heap offset \(offset) and size \(need.size) end after the heap's \(size)") }
    let range = offset..<offset + need.size
    used.withLock { Self.insert(range, into: &$0) }
    return part(range, length, options)
  }

  /// Gives back the part of a buffer that ended.
  func release(_ range: Range<Int>) {
    used.withLock { used in
      if let index = used.firstIndex(of: range) { used.remove(at: index) }
    }
  }

  private func part(_ range: Range<Int>, _ length: Int, _ options: MTLResourceOptions) -> StandInBuffer {
    if type == .automatic { memset(bytes + range.lowerBound, 0xa5, range.count) }
    return .part(of: self, range: range, length: length, options: options)
  }

  private func check(_ options: MTLResourceOptions) {
    if options.storageMode != storageMode || options.cpuCacheMode != cpuCacheMode {
      trap("a heap's buffer must have the heap's storage and cache mode, not options \(options.rawValue)")
    }
    if options.hazardTrackingMode != .default && options.hazardTrackingMode != hazardTrackingMode {
      trap("a heap's buffer must have the heap's hazard tracking, not options \(options.rawValue)")
    }
  }

  private static func insert(_ range: Range<Int>, into used: inout [Range<Int>]) {
    let index = used.firstIndex { $0.lowerBound > range.lowerBound } ?? used.count
    used.insert(range, at: index)
  }

  private static func gaps(_ used: [Range<Int>], _ size: Int) -> [Range<Int>] {
    var gaps: [Range<Int>] = []
    var start = 0
    for range in used {
      if range.lowerBound > start { gaps.append(start..<range.lowerBound) }
      start = max(start, range.upperBound)
    }
    if start < size { gaps.append(start..<size) }
    return gaps
  }
}

extension StandInDevice {
  /// Small buffers may lie at any 256 bytes, others at pages.
  public func heapBufferSizeAndAlign(length: Int, options: MTLResourceOptions) -> MTLSizeAndAlign {
    let align = length < pageSize ? 256 : pageSize
    return MTLSizeAndAlign(size: roundedUp(length, to: align), align: align)
  }

  public func makeHeap(descriptor: MTLHeapDescriptor) -> (any MTLHeap)? {
    if descriptor.storageMode == .memoryless || descriptor.storageMode == .managed {
      trap("makeHeap: storage mode \(descriptor.storageMode) is neither shared nor private")
    }
    if descriptor.type == .sparse { trap("makeHeap: the stand-in has no sparse heaps") }
    if fails(STANDIN_MAKE_BUFFER) || isRemoved { return nil }
    guard descriptor.size > 0, descriptor.size <= maxBufferLength else { return nil }
    return StandInHeap(device: self, descriptor: descriptor)
  }
}
