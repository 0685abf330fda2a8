// Events. One class plays both kinds: what a program may do with a plain MTLEvent, its protocol says.
import CStandIn
import Dispatch
import Foundation

public final class StandInEvent: NSObject, MTLSharedEvent, @unchecked Sendable {
  // Sendable because all that changes is behind `state`, but the label, which only the program that sets it reads.
  private struct Waiter {
    let value: UInt64
    /// A listener that went takes its notifications with it.
    weak var listener: MTLSharedEventListener?
    let block: MTLSharedEventNotificationBlock
  }

  private struct State {
    var value: UInt64 = 0
    var waiters: [Waiter] = []
  }

  private let owner: StandInDevice
  private let state = Guarded(State())
  public var label: String?

  private let isShared: Bool

  init(device: StandInDevice, isShared: Bool) {
    owner = device
    self.isShared = isShared
    super.init()
    standin_count(UInt32(STANDIN_LIVE_EVENTS), 1)
  }

  deinit {
    standin_count(UInt32(STANDIN_LIVE_EVENTS), -1)
  }

  public var device: (any MTLDevice)? { owner }

  public var signaledValue: UInt64 {
    get { state.withLock { $0.value } }
    set {
      let due = state.withLock { state in
        state.value = newValue
        let due = state.waiters.filter { $0.value <= newValue }
        state.waiters.removeAll { $0.value <= newValue }
        return due
      }
      for waiter in due { deliver(waiter, newValue) }
    }
  }

  public func notify(
    _ listener: MTLSharedEventListener, atValue value: UInt64, block: @escaping MTLSharedEventNotificationBlock
  ) {
    let waiter = Waiter(value: value, listener: listener, block: block)
    let reached: UInt64? = state.withLock { state in
      if state.value >= value { return state.value }
      state.waiters.append(waiter)
      return nil
    }
    if let reached { deliver(waiter, reached) }
  }

  private func deliver(_ waiter: Waiter, _ value: UInt64) {
    guard let listener = waiter.listener else { return }
    let block = waiter.block
    listener.dispatchQueue.async { block(self, value) }
  }

  /// The GPU's wait. False where the device was removed first.
  func waitOnQueue(for value: UInt64) -> Bool {
    while true {
      let reached: Bool? = state.wait(seconds: 0.05) { $0.value >= value ? true : nil }
      if reached == true { return true }
      if owner.isRemoved { return false }
    }
  }

  /// The stand-in's object behind an event that `call` was given. Shared events work on all devices.
  static func of(_ event: any MTLEvent, on device: StandInDevice, _ call: String) -> StandInEvent {
    guard let event = event as? StandInEvent, event.isShared || event.owner === device else {
      trap("\(call): the event belongs to another device")
    }
    return event
  }
}
