// Plain values of the Metal API: sizes, options and families, with Apple's names and raw values.

public struct MTLSize: Equatable, Sendable {
  public var width: Int
  public var height: Int
  public var depth: Int

  public init() {
    self.init(width: 0, height: 0, depth: 0)
  }

  public init(width: Int, height: Int, depth: Int) {
    self.width = width
    self.height = height
    self.depth = depth
  }
}

public func MTLSizeMake(_ width: Int, _ height: Int, _ depth: Int) -> MTLSize {
  MTLSize(width: width, height: height, depth: depth)
}

public struct MTLSizeAndAlign: Equatable, Sendable {
  public var size: Int
  public var align: Int

  public init() {
    self.init(size: 0, align: 0)
  }

  public init(size: Int, align: Int) {
    self.size = size
    self.align = align
  }
}

public enum MTLCPUCacheMode: UInt, Sendable {
  case defaultCache = 0
  case writeCombined = 1
}

public enum MTLStorageMode: UInt, Sendable {
  case shared = 0
  case managed = 1
  case `private` = 2
  case memoryless = 3
}

public enum MTLHazardTrackingMode: UInt, Sendable {
  case `default` = 0
  case untracked = 1
  case tracked = 2
}

/// Cache mode in bits 0 to 3, storage mode in bits 4 to 7, hazard tracking in bits 8 and 9.
public struct MTLResourceOptions: OptionSet, Sendable {
  public let rawValue: UInt

  public init(rawValue: UInt) {
    self.rawValue = rawValue
  }

  public static let cpuCacheModeWriteCombined = MTLResourceOptions(rawValue: 1)
  public static var storageModeShared: MTLResourceOptions { [] }
  public static let storageModeManaged = MTLResourceOptions(rawValue: 1 << 4)
  public static let storageModePrivate = MTLResourceOptions(rawValue: 2 << 4)
  public static let storageModeMemoryless = MTLResourceOptions(rawValue: 3 << 4)
  public static let hazardTrackingModeUntracked = MTLResourceOptions(rawValue: 1 << 8)
  public static let hazardTrackingModeTracked = MTLResourceOptions(rawValue: 2 << 8)
}

extension MTLResourceOptions {
  var cpuCacheMode: MTLCPUCacheMode { MTLCPUCacheMode(rawValue: rawValue & 0xf) ?? .defaultCache }
  var storageMode: MTLStorageMode { MTLStorageMode(rawValue: (rawValue >> 4) & 0xf) ?? .memoryless }
  var hazardTrackingMode: MTLHazardTrackingMode { MTLHazardTrackingMode(rawValue: (rawValue >> 8) & 0x3) ?? .default }

  init(_ cache: MTLCPUCacheMode, _ storage: MTLStorageMode, _ hazards: MTLHazardTrackingMode) {
    self.init(rawValue: cache.rawValue | storage.rawValue << 4 | hazards.rawValue << 8)
  }
}

public enum MTLGPUFamily: Int, Sendable {
  case apple1 = 1001
  case apple2 = 1002
  case apple3 = 1003
  case apple4 = 1004
  case apple5 = 1005
  case apple6 = 1006
  case apple7 = 1007
  case apple8 = 1008
  case apple9 = 1009
  case mac2 = 2002
  case common1 = 3001
  case common2 = 3002
  case common3 = 3003
  case metal3 = 5001
}

public enum MTLDispatchType: UInt, Sendable {
  case serial = 0
  case concurrent = 1
}
