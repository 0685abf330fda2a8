// The device that the stand-in plays: a Mac with Apple Silicon, 24 GB of unified memory and pages of 16 KiB.
import CStandIn
import Foundation

/// The page size of Apple Silicon, whatever this machine's is.
let pageSize = 16384

func roundedUp(_ value: Int, to multiple: Int) -> Int {
  (value + multiple - 1) / multiple * multiple
}

/// A new object with each call; devices of different objects share nothing.
public func MTLCreateSystemDefaultDevice() -> (any MTLDevice)? {
  MTLCopyAllDevices().first
}

public func MTLCopyAllDevices() -> [any MTLDevice] {
  let config = standin_current_config()
  if config.num_devices == STANDIN_NO_DEVICES { return [] }
  return (0..<Int(config.num_devices)).map { StandInDevice(ordinal: $0, config: config) }
}

/// Counts a call and waits as long as its fault says; the fault itself is the caller's.
func meet(_ call: Int) -> standin_outcome {
  let outcome = standin_meet(UInt32(call))
  if outcome.delay_us > 0 { usleep(outcome.delay_us) }
  return outcome
}

/// True where `call` is to fail this time.
func fails(_ call: Int) -> Bool {
  let outcome = meet(call)
  return outcome.met != 0 && outcome.code != 0
}

public final class StandInDevice: NSObject, MTLDevice, @unchecked Sendable {
  // Sendable because all that changes is behind `state`.
  private struct State {
    var allocatedBytes = 0
    var isRemoved = false
    var hasRun = false
  }

  let config: standin_config
  private let ordinal: Int
  private let state = Guarded(State())

  init(ordinal: Int, config: standin_config) {
    self.ordinal = ordinal
    self.config = config
    super.init()
  }

  public var name: String { "Metal stand-in \(ordinal)" }
  public var registryID: UInt64 { 0x1000_0000 + UInt64(ordinal) }
  public var maxThreadsPerThreadgroup: MTLSize { MTLSize(width: 1024, height: 1024, depth: 1024) }
  public var isLowPower: Bool { false }
  public var isHeadless: Bool { false }
  public var isRemovable: Bool { false }
  public var hasUnifiedMemory: Bool { config.not_unified == 0 }
  public var recommendedMaxWorkingSetSize: UInt64 { config.working_set }
  public var maxThreadgroupMemoryLength: Int { 32768 }
  public var maxBufferLength: Int { Int(config.max_buffer_length) }
  public var currentAllocatedSize: Int { state.withLock { $0.allocatedBytes } }

  /// An M4 has all Apple families up to the ninth; a machine without unified memory has none of them.
  public func supportsFamily(_ gpuFamily: MTLGPUFamily) -> Bool {
    switch gpuFamily {
    case .mac2, .common1, .common2, .common3, .metal3: true
    default: hasUnifiedMemory
    }
  }

  public func makeCommandQueue() -> (any MTLCommandQueue)? {
    makeCommandQueue(maxCommandBufferCount: 64)
  }

  public func makeCommandQueue(maxCommandBufferCount: Int) -> (any MTLCommandQueue)? {
    if maxCommandBufferCount <= 0 { trap("maxCommandBufferCount \(maxCommandBufferCount) must be above 0") }
    if fails(STANDIN_MAKE_QUEUE) { return nil }
    return StandInCommandQueue(device: self, maxCommandBufferCount: maxCommandBufferCount)
  }

  public func makeFence() -> (any MTLFence)? {
    StandInFence(device: self)
  }

  public func makeEvent() -> (any MTLEvent)? {
    fails(STANDIN_MAKE_EVENT) ? nil : StandInEvent(device: self, isShared: false)
  }

  public func makeSharedEvent() -> (any MTLSharedEvent)? {
    fails(STANDIN_MAKE_EVENT) ? nil : StandInEvent(device: self, isShared: true)
  }

  public func makeResidencySet(descriptor desc: MTLResidencySetDescriptor) throws -> any MTLResidencySet {
    let outcome = meet(STANDIN_RESIDENCY)
    if outcome.met != 0 && outcome.code != 0 {
      throw NSError(domain: "MTLResidencySetErrorDomain", code: Int(outcome.code))
    }
    return StandInResidencySet(device: self, label: desc.label)
  }

  /// Adds to `currentAllocatedSize`; negative on release.
  func account(_ bytes: Int) {
    state.withLock { $0.allocatedBytes += bytes }
  }

  /// True once a command buffer ended with `deviceRemoved`: nothing runs from then on.
  var isRemoved: Bool { state.withLock { $0.isRemoved } }

  func remove() {
    state.withLock { $0.isRemoved = true }
  }

  /// Whether any command buffer has run to its end.
  var hasRun: Bool { state.withLock { $0.hasRun } }

  func noteRun() {
    state.withLock { $0.hasRun = true }
  }
}

public final class StandInFence: NSObject, MTLFence, @unchecked Sendable {
  // Sendable because nothing but the label changes, which nobody reads.
  let owner: StandInDevice
  public var label: String?
  public var device: any MTLDevice { owner }

  init(device: StandInDevice) {
    owner = device
    super.init()
  }
}
