// Command queues: they limit how many command buffers are under way, and run them one after the other in the order
// in which they were enqueued.
import CStandIn
import Dispatch
import Foundation

public final class StandInCommandQueue: NSObject, MTLCommandQueue, @unchecked Sendable {
  // Sendable because all that changes is behind `state`, but the label, which only the program that sets it reads.
  private struct State {
    var freeSlots: Int
    /// Enqueued and not yet done, in order.
    var order: [StandInCommandBuffer] = []
    var isRunning = false
    var residencySets: [StandInResidencySet] = []
    /// Where the pseudo-random delays of shuffled completions have come to.
    var shuffle: UInt64
  }

  private static let maxResidencySets = 32

  let owner: StandInDevice
  public var label: String?
  private let state: Guarded<State>
  private let gpu = DispatchQueue(label: "headrace.stand-in.gpu", qos: .userInitiated)
  /// Scheduled and completed handlers run here, so never two at once and in order.
  private let handlers = DispatchQueue(label: "headrace.stand-in.handlers", qos: .userInitiated)

  init(device: StandInDevice, maxCommandBufferCount: Int) {
    owner = device
    let seed = UInt64(UInt(bitPattern: ObjectIdentifier(device).hashValue)) ^ UInt64(maxCommandBufferCount)
    state = Guarded(State(freeSlots: maxCommandBufferCount, shuffle: seed | 1))
    super.init()
    standin_count(UInt32(STANDIN_LIVE_QUEUES), 1)
  }

  deinit {
    standin_count(UInt32(STANDIN_LIVE_QUEUES), -1)
  }

  public var device: any MTLDevice { owner }

  public func makeCommandBuffer() -> (any MTLCommandBuffer)? {
    make(retained: true, errorOptions: [])
  }

  public func makeCommandBuffer(descriptor: MTLCommandBufferDescriptor) -> (any MTLCommandBuffer)? {
    make(retained: descriptor.retainedReferences, errorOptions: descriptor.errorOptions)
  }

  public func makeCommandBufferWithUnretainedReferences() -> (any MTLCommandBuffer)? {
    make(retained: false, errorOptions: [])
  }

  /// Waits while as many command buffers as the queue takes are not completed.
  private func make(retained: Bool, errorOptions: MTLCommandBufferErrorOption) -> StandInCommandBuffer {
    _ = state.wait { state -> Bool? in
      if state.freeSlots == 0 { return nil }
      state.freeSlots -= 1
      return true
    }
    return StandInCommandBuffer(queue: self, retained: retained, errorOptions: errorOptions)
  }

  /// A command buffer completed, or ended without having been committed.
  func giveBackSlot() {
    state.withLock { $0.freeSlots += 1 }
  }

  func enqueue(_ buffer: StandInCommandBuffer) {
    state.withLock { $0.order.append(buffer) }
  }

  /// Starts the next command buffer, where none runs and the next in order is committed.
  func pump() {
    let next: StandInCommandBuffer? = state.withLock { state in
      guard !state.isRunning, let head = state.order.first, head.isCommitted else { return nil }
      state.isRunning = true
      return head
    }
    guard let next else { return }
    gpu.async { [self] in
      next.run()
      state.withLock { state in
        state.order.removeFirst()
        state.isRunning = false
      }
      next.finish()
      pump()
    }
  }

  func callHandlers(_ call: @escaping @Sendable () -> Void) {
    handlers.async(execute: call)
  }

  /// Microseconds by which the next completion comes late, where completions are shuffled.
  func nextDelay() -> UInt32 {
    if owner.config.shuffle_completions == 0 { return 0 }
    return state.withLock { state in
      state.shuffle = state.shuffle &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return UInt32(truncatingIfNeeded: state.shuffle >> 33) % 3000
    }
  }

  public func addResidencySet(_ residencySet: any MTLResidencySet) {
    let set = StandInResidencySet.of(residencySet, on: owner, "addResidencySet")
    state.withLock { state in
      if state.residencySets.contains(where: { $0 === set }) { return }
      if state.residencySets.count == Self.maxResidencySets {
        trap("addResidencySet: a queue takes at most \(Self.maxResidencySets) sets")
      }
      state.residencySets.append(set)
    }
  }

  public func addResidencySets(_ residencySets: [any MTLResidencySet]) {
    for set in residencySets { addResidencySet(set) }
  }

  public func removeResidencySet(_ residencySet: any MTLResidencySet) {
    let set = StandInResidencySet.of(residencySet, on: owner, "removeResidencySet")
    state.withLock { $0.residencySets.removeAll { $0 === set } }
  }

  public func removeResidencySets(_ residencySets: [any MTLResidencySet]) {
    for set in residencySets { removeResidencySet(set) }
  }
}
