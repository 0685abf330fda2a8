// Residency sets. Changes are staged until commit; the memory is resident between requestResidency and
// endResidency.
import CStandIn
import Foundation

public final class StandInResidencySet: NSObject, MTLResidencySet, @unchecked Sendable {
  // Sendable because all that changes is behind `state`. Programs may still not use it from two threads at once,
  // and are ended where they do.
  private struct State {
    var isBusy = false
    var staged: [any MTLAllocation] = []
    var committed: [any MTLAllocation] = []
    var isResident = false
    var residentBytes = 0
    var requests = 0
  }

  let owner: StandInDevice
  public let label: String?
  private let state = Guarded(State())

  init(device: StandInDevice, label: String?) {
    owner = device
    self.label = label
    super.init()
    standin_count(UInt32(STANDIN_LIVE_RESIDENCY_SETS), 1)
  }

  deinit {
    standin_count(UInt32(STANDIN_LIVE_RESIDENCY_SETS), -1)
    // Memory that is still resident now stays counted: the system was seen to keep it until the process ends.
  }

  static func of(_ set: any MTLResidencySet, on device: StandInDevice, _ call: String) -> StandInResidencySet {
    guard let set = set as? StandInResidencySet, set.owner === device else {
      trap("\(call): the residency set belongs to another device")
    }
    return set
  }

  public var device: any MTLDevice { owner }
  public var allocatedSize: UInt64 { UInt64(alone("allocatedSize") { Self.size($0.committed) }) }
  public var allocationCount: Int { alone("allocationCount") { $0.staged.count } }
  public var allAllocations: [any MTLAllocation] { alone("allAllocations") { $0.staged } }

  /// How often residency was asked for, for tests.
  public var requests: Int { state.withLock { $0.requests } }

  public func requestResidency() {
    alone("requestResidency") { state in
      state.requests += 1
      state.isResident = true
      update(&state)
    }
  }

  public func endResidency() {
    alone("endResidency") { state in
      state.isResident = false
      update(&state)
    }
  }

  public func addAllocation(_ allocation: any MTLAllocation) {
    addAllocations([allocation])
  }

  public func addAllocations(_ allocations: [any MTLAllocation]) {
    for allocation in allocations { check(allocation) }
    alone("addAllocations") { state in
      for allocation in allocations where !state.staged.contains(where: { $0 === allocation }) {
        state.staged.append(allocation)
      }
    }
  }

  public func removeAllocation(_ allocation: any MTLAllocation) {
    removeAllocations([allocation])
  }

  public func removeAllocations(_ allocations: [any MTLAllocation]) {
    alone("removeAllocations") { state in
      state.staged.removeAll { staged in allocations.contains { $0 === staged } }
    }
  }

  public func removeAllAllocations() {
    alone("removeAllAllocations") { $0.staged = [] }
  }

  public func containsAllocation(_ anAllocation: any MTLAllocation) -> Bool {
    alone("containsAllocation") { state in state.staged.contains { $0 === anAllocation } }
  }

  public func commit() {
    let dropped = alone("commit") { state in
      let dropped = state.committed
      state.committed = state.staged
      update(&state)
      return dropped
    }
    // The last reference to a buffer may go here, and its deallocator is the program's.
    withExtendedLifetime(dropped) {}
  }

  /// Counts what is resident. While nothing ever ran on the device, resident memory is not given back: a fault of
  /// the real system that the library works around.
  private func update(_ state: inout State) {
    let wanted = state.isResident ? Self.size(state.committed) : 0
    if wanted < state.residentBytes && !owner.hasRun { return }
    standin_count(UInt32(STANDIN_LIVE_RESIDENT_BYTES), Int64(wanted - state.residentBytes))
    state.residentBytes = wanted
  }

  private func check(_ allocation: any MTLAllocation) {
    if let buffer = allocation as? StandInBuffer, buffer.owner === owner { return }
    if let heap = allocation as? StandInHeap, heap.owner === owner { return }
    trap("addAllocation: the allocation belongs to another device")
  }

  /// A part of a heap makes the whole heap resident.
  private static func size(_ allocations: [any MTLAllocation]) -> Int {
    var seen: [ObjectIdentifier: Int] = [:]
    for allocation in allocations {
      let whole: any MTLAllocation = (allocation as? StandInBuffer)?.heap ?? allocation
      seen[ObjectIdentifier(whole)] = whole.allocatedSize
    }
    return seen.values.reduce(0, +)
  }

  private func alone<R>(_ call: String, _ body: (inout State) -> R) -> R {
    state.withLock { state in
      if state.isBusy { trap("\(call) of a residency set that another thread is using") }
      state.isBusy = true
    }
    // Gives another thread the chance to be caught.
    sched_yield()
    return state.withLock { state in
      state.isBusy = false
      return body(&state)
    }
  }
}
