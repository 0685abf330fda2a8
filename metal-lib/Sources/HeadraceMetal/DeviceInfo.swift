import CHeadrace
import Foundation
import Metal

/// The system's devices, the default one first.
func metalDevices() -> [any MTLDevice] {
  guard let first = MTLCreateSystemDefaultDevice() else { return [] }
  return [first] + MTLCopyAllDevices().filter { $0.registryID != first.registryID }
}

extension Device {
  /// HR_UNSUPPORTED where there is no such device; HR_INVALID for options outside their bounds.
  static func open(ordinal: UInt32, options: hr_device_options) throws(Failure) -> Device {
    let devices = metalDevices()
    guard ordinal < devices.count else {
      throw Failure(Status.unsupported, "there is no Metal device \(ordinal); the system has \(devices.count)")
    }
    let metal = devices[Int(ordinal)]
    let resolved = try Options(
      options, workingSet: metal.recommendedMaxWorkingSetSize, cores: Int(hr_performance_cores()))
    return try Device(metal: metal, ordinal: ordinal, options: resolved)
  }

  /// The largest window worth mapping at once: several must fit into the budget, since a driver wires a whole window.
  var maxMapLength: Int {
    max(pageSize, min(metal.maxBufferLength, options.mapBudget / 4) & ~(pageSize - 1))
  }

  func info() -> hr_device_info {
    var info = hr_device_info()
    info.flags = flags
    info.gpu_family = gpuFamily
    info.metal_version = languageVersion
    // Of Apple's GPUs; others have pipelines that tell.
    info.simd_width = gpuFamily > 0 ? 32 : 0
    info.codecs = 0b11111
    info.lanes = UInt32(options.lanes)
    info.performance_cores = hr_performance_cores()
    info.ordinal = ordinal
    info.page_size = UInt64(pageSize)
    info.max_buffer_length = UInt64(metal.maxBufferLength)
    info.working_set = metal.recommendedMaxWorkingSetSize
    info.max_map_length = UInt64(maxMapLength)
    info.map_budget = UInt64(options.mapBudget)
    info.max_threadgroup_memory = UInt64(metal.maxThreadgroupMemoryLength)
    info.allocated_size = UInt64(metal.currentAllocatedSize)
    info.registry_id = metal.registryID
    withUnsafeMutableBytes(of: &info.name) { fillText(metal.name, $0) }
    return info
  }

  private var flags: UInt32 {
    var flags = HR_DEVICE_CAN_STREAM
    if metal.hasUnifiedMemory { flags |= HR_DEVICE_UNIFIED_MEMORY }
    if residency.isActive { flags |= HR_DEVICE_RESIDENCY_SETS }
    if metal.isRemovable { flags |= HR_DEVICE_REMOVABLE }
    if metal.isLowPower { flags |= HR_DEVICE_LOW_POWER }
    if Product.isSupported(by: metal) { flags |= HR_DEVICE_MATMUL }
    #if os(Linux)
      flags |= HR_DEVICE_STAND_IN
    #endif
    return UInt32(flags)
  }

  /// The highest of Apple's families; 0 for other GPUs.
  private var gpuFamily: UInt32 {
    // MTLGPUFamily.apple1 is 1001, and so on. Families that this SDK does not name yet may exist.
    for number in stride(from: 20, through: 1, by: -1) {
      if let family = MTLGPUFamily(rawValue: 1000 + number), metal.supportsFamily(family) { return UInt32(number) }
    }
    return 0
  }

  /// What the system's compiler takes.
  var languageVersion: UInt32 {
    if #available(macOS 26.0, *) { return 4 << 16 }
    if #available(macOS 15.0, *) { return 3 << 16 | 2 }
    return 3 << 16 | 1
  }
}
