// Memory of the Metal API: buffers, heaps, fences and residency sets.
import Foundation

public protocol MTLAllocation: NSObjectProtocol {
  var allocatedSize: Int { get }
}

public protocol MTLResource: MTLAllocation {
  var label: String? { get set }
  var device: any MTLDevice { get }
  var cpuCacheMode: MTLCPUCacheMode { get }
  var storageMode: MTLStorageMode { get }
  var hazardTrackingMode: MTLHazardTrackingMode { get }
  var resourceOptions: MTLResourceOptions { get }
  var heap: (any MTLHeap)? { get }
  var heapOffset: Int { get }
}

public protocol MTLBuffer: MTLResource {
  var length: Int { get }
  var gpuAddress: UInt64 { get }
  func contents() -> UnsafeMutableRawPointer
}

public enum MTLHeapType: Int, Sendable {
  case automatic = 0
  case placement = 1
  case sparse = 2
}

open class MTLHeapDescriptor: NSObject, NSCopying {
  open var size = 0
  open var storageMode = MTLStorageMode.private
  open var cpuCacheMode = MTLCPUCacheMode.defaultCache
  open var hazardTrackingMode = MTLHazardTrackingMode.default
  open var type = MTLHeapType.automatic

  open var resourceOptions: MTLResourceOptions {
    get { MTLResourceOptions(cpuCacheMode, storageMode, hazardTrackingMode) }
    set {
      cpuCacheMode = newValue.cpuCacheMode
      storageMode = newValue.storageMode
      hazardTrackingMode = newValue.hazardTrackingMode
    }
  }

  open func copy(with zone: NSZone? = nil) -> Any {
    let copy = MTLHeapDescriptor()
    copy.size = size
    copy.resourceOptions = resourceOptions
    copy.type = type
    return copy
  }
}

public protocol MTLHeap: MTLAllocation {
  var label: String? { get set }
  var device: any MTLDevice { get }
  var storageMode: MTLStorageMode { get }
  var cpuCacheMode: MTLCPUCacheMode { get }
  var hazardTrackingMode: MTLHazardTrackingMode { get }
  var resourceOptions: MTLResourceOptions { get }
  var size: Int { get }
  var usedSize: Int { get }
  var currentAllocatedSize: Int { get }
  var type: MTLHeapType { get }
  func maxAvailableSize(alignment: Int) -> Int
  func makeBuffer(length: Int, options: MTLResourceOptions) -> (any MTLBuffer)?
  func makeBuffer(length: Int, options: MTLResourceOptions, offset: Int) -> (any MTLBuffer)?
}

extension MTLHeap {
  public func makeBuffer(length: Int) -> (any MTLBuffer)? {
    makeBuffer(length: length, options: [])
  }
}

public protocol MTLFence: NSObjectProtocol {
  var device: any MTLDevice { get }
  var label: String? { get set }
}

open class MTLResidencySetDescriptor: NSObject, NSCopying {
  open var label: String?
  open var initialCapacity = 0

  open func copy(with zone: NSZone? = nil) -> Any {
    let copy = MTLResidencySetDescriptor()
    copy.label = label
    copy.initialCapacity = initialCapacity
    return copy
  }
}

public protocol MTLResidencySet: NSObjectProtocol {
  var device: any MTLDevice { get }
  var label: String? { get }
  var allocatedSize: UInt64 { get }
  var allocationCount: Int { get }
  var allAllocations: [any MTLAllocation] { get }
  func requestResidency()
  func endResidency()
  func addAllocation(_ allocation: any MTLAllocation)
  func addAllocations(_ allocations: [any MTLAllocation])
  func removeAllocation(_ allocation: any MTLAllocation)
  func removeAllocations(_ allocations: [any MTLAllocation])
  func removeAllAllocations()
  func containsAllocation(_ anAllocation: any MTLAllocation) -> Bool
  func commit()
}
