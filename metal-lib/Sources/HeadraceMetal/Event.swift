import CHeadrace
import Dispatch
import Metal

/// An MTLSharedEvent and who waits for it. Values above the present one count, lower ones change nothing.
final class Event: Resource, @unchecked Sendable {  // MTLSharedEvent may be used by any thread; the rest is locked.
  let metal: any MTLSharedEvent
  private let listener: MTLSharedEventListener
  private let state = Locked(State())

  private struct State {
    var waiters = WaiterHeap()
    var isClosed = false
    /// The lowest value that Metal was asked to tell of and has not told yet: signals may come from elsewhere.
    var listensFor: UInt64?
  }

  /// HR_DEVICE_FAILED where Metal makes none.
  init(device: Device) throws(Failure) {
    guard let event = device.metal.makeSharedEvent() else {
      throw Failure(Status.deviceFailed, "\(device.metal.name) made no shared event")
    }
    metal = event
    listener = MTLSharedEventListener(dispatchQueue: device.notifications)
    super.init(kind: .event, device: device)
  }

  override class var kind: Kind { .event }

  var value: UInt64 { metal.signaledValue }

  /// For the ABI: signals, and runs what can go on. HR_CLOSED.
  func signal(_ value: UInt64) throws(Failure) {
    var ready = ReadyList()
    try signal(value, ready: &ready)
    ready.run()
  }

  /// Signals, and puts what can go on into `ready`. HR_CLOSED.
  func signal(_ value: UInt64, ready: inout ReadyList) throws(Failure) {
    let reached = try state.withLock { (state) throws(Failure) in
      if state.isClosed { throw Failure.closed("the event") }
      if value > metal.signaledValue { metal.signaledValue = value }
      return state.waiters.removeReached(metal.signaledValue)
    }
    wake(reached, nil, &ready)
  }

  /// Whether the value was reached; if not, wakes `waiter` under `token` when it is. HR_CLOSED.
  func wait(for value: UInt64, _ waiter: any Waiter, token: Int) throws(Failure) -> Bool {
    let isReached = try state.withLock { (state) throws(Failure) in
      if state.isClosed { throw Failure.closed("the event") }
      if metal.signaledValue >= value { return true }
      state.waiters.insert(value: value, waiter: waiter, token: token)
      return false
    }
    if !isReached { listen() }
    return isReached
  }

  /// Forgets a waiter that gave up.
  func forget(_ waiter: any Waiter, token: Int) {
    state.withLock { $0.waiters.forget(waiter, token: token) }
  }

  /// Who still waits fails with HR_CLOSED.
  override func close() {
    let left = state.withLock { state in
      state.isClosed = true
      return state.waiters.removeAll()
    }
    var ready = ReadyList()
    wake(left, Failure.closed("the event"), &ready)
    ready.run()
  }

  private func wake(_ waiters: [WaiterHeap.Entry], _ failure: Failure?, _ ready: inout ReadyList) {
    for entry in waiters { entry.waiter.wake(token: entry.token, failure: failure, ready: &ready) }
  }

  /// Asks Metal to tell of the lowest value that is waited for, unless it will tell of that one or a lower one.
  private func listen() {
    let value: UInt64? = state.withLock { state in
      guard !state.isClosed, let lowest = state.waiters.lowest else { return nil }
      if let listensFor = state.listensFor, listensFor <= lowest { return nil }
      state.listensFor = lowest
      return lowest
    }
    guard let value else { return }
    metal.notify(listener, atValue: value) { [weak self] _, _ in self?.told(value) }
  }

  private func told(_ value: UInt64) {
    let reached = state.withLock { state in
      if state.listensFor == value { state.listensFor = nil }
      return state.waiters.removeReached(metal.signaledValue)
    }
    var ready = ReadyList()
    wake(reached, nil, &ready)
    ready.run()
    listen()
  }
}
