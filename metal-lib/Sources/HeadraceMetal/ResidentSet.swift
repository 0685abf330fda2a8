import Foundation
import Metal

#if HEADRACE_SDK_15

/// A residency set, what is in it, and the timer that keeps it resident.
///
/// Apple's sets must not be used by two threads at once, and asking for residency can take long. So callers only note
/// what they want, under a lock, and `worker` alone uses the set.
@available(macOS 15.0, *)
final class ResidentSet: ResidencyKeeper, @unchecked Sendable {  // `set`, `contents` and `timer` are used on `worker` alone.
  /// macOS was seen to unwire memory about a second after its last use, even in a resident set.
  private static let intervalMs = 500

  /// What a buffer is resident by: itself, or the heap that it is a part of. A part is not kept, so that its room in
  /// the heap is free at once.
  private struct Member: @unchecked Sendable {  // MTLAllocation may go to any thread.
    let allocation: any MTLAllocation
    var id: ObjectIdentifier { ObjectIdentifier(allocation) }

    init(_ buffer: any MTLBuffer) {
      if let heap = buffer.heap { allocation = heap } else { allocation = buffer }
    }
  }

  private enum Change: Sendable {
    case add(Member)
    case remove(Member)
    case attach(Unchecked<any MTLCommandQueue>)
    case detach(Unchecked<any MTLCommandQueue>)
  }

  private struct Wishes: Sendable {
    var changes: [Change] = []
    /// The worker will look at `changes`.
    var isScheduled = false
    var lastUsedMs = 0.0
    var hasRun = false
    /// The timer runs, or is about to.
    var isAwake = false
    var isClosed = false
  }

  private struct Contents {
    /// How often each buffer or heap was added.
    var members: [ObjectIdentifier: Int] = [:]
    var queues: [any MTLCommandQueue] = []
    /// Residency was asked for and not ended.
    var isRequested = false
    var wasEverRequested = false
    /// The keep-alive ran out: memory stays unwired until the next GPU work.
    var isAsleep = false
  }

  private let metal: any MTLDevice
  private let keepAliveMs: Int
  let set: any MTLResidencySet
  private let worker = DispatchQueue(label: "headrace.residency", qos: .utility)
  private let wishes = Locked(Wishes())
  private var contents = Contents()
  private var timer: (any DispatchSourceTimer)?

  /// nil where the system makes no set.
  init?(metal: any MTLDevice, keepAliveMs: Int) {
    let descriptor = MTLResidencySetDescriptor()
    descriptor.label = "headrace"
    guard let set = try? metal.makeResidencySet(descriptor: descriptor) else { return nil }
    self.metal = metal
    self.set = set
    self.keepAliveMs = keepAliveMs
  }

  deinit { timer?.cancel() }

  func add(_ buffer: any MTLBuffer) { change(.add(Member(buffer))) }
  func remove(_ buffer: any MTLBuffer) { change(.remove(Member(buffer))) }
  func attach(_ queue: any MTLCommandQueue) { change(.attach(Unchecked(queue))) }
  func detach(_ queue: any MTLCommandQueue) { change(.detach(Unchecked(queue))) }

  private func change(_ change: Change) {
    let isFirst = wishes.withLock { wishes in
      if wishes.isClosed { return false }
      wishes.changes.append(change)
      defer { wishes.isScheduled = true }
      return !wishes.isScheduled
    }
    if isFirst { worker.async { [self] in autoreleasepool { applyChanges() } } }
  }

  func used() {
    let now = clockMs()
    let wakes = wishes.withLock { wishes in
      wishes.lastUsedMs = now
      wishes.hasRun = true
      if wishes.isClosed || wishes.isAwake { return false }
      wishes.isAwake = true
      return true
    }
    if wakes { worker.async { [self] in autoreleasepool { wake() } } }
  }

  func close() {
    let isFirst = wishes.withLock { wishes in
      defer { wishes.isClosed = true }
      return !wishes.isClosed
    }
    if isFirst { worker.sync { autoreleasepool { letGo() } } }
  }

  // MARK: On the worker

  /// All changes that have gathered, with one commit.
  private func applyChanges() {
    let changes = wishes.withLock { wishes in
      wishes.isScheduled = false
      defer { wishes.changes = [] }
      return wishes.changes
    }
    var isChanged = false
    for change in changes {
      switch change {
      case .add(let member): isChanged = add(member) || isChanged
      case .remove(let member): isChanged = remove(member) || isChanged
      case .attach(let queue):
        contents.queues.append(queue.value)
        queue.value.addResidencySet(set)
      case .detach(let queue): detachNow(queue.value)
      }
    }
    if !isChanged { return }
    set.commit()
    if !contents.members.isEmpty && !contents.isAsleep { request() }
  }

  /// Whether the set changed. The set keeps its allocations, so their identifiers stay theirs.
  private func add(_ member: Member) -> Bool {
    let count = contents.members[member.id] ?? 0
    contents.members[member.id] = count + 1
    if count == 0 { set.addAllocation(member.allocation) }
    return count == 0
  }

  private func remove(_ member: Member) -> Bool {
    guard let count = contents.members[member.id] else { return false }
    contents.members[member.id] = count > 1 ? count - 1 : nil
    if count == 1 { set.removeAllocation(member.allocation) }
    return count == 1
  }

  private func detachNow(_ queue: any MTLCommandQueue) {
    guard let index = contents.queues.firstIndex(where: { $0 === queue }) else { return }
    contents.queues.remove(at: index)
    queue.removeResidencySet(set)
  }

  private func request() {
    contents.isRequested = true
    contents.wasEverRequested = true
    set.requestResidency()
  }

  /// Asks for residency now and every half second, until GPU work has been missing for long enough.
  private func wake() {
    if wishes.withLock({ $0.isClosed }) || timer != nil { return }
    contents.isAsleep = false
    request()
    let timer = DispatchSource.makeTimerSource(queue: worker)
    let interval = DispatchTimeInterval.milliseconds(Self.intervalMs)
    timer.schedule(deadline: .now() + interval, repeating: interval, leeway: .milliseconds(Self.intervalMs / 10))
    timer.setEventHandler { [weak self] in autoreleasepool { self?.beat() } }
    self.timer = timer
    timer.activate()
  }

  private func beat() {
    let now = clockMs()
    let isOver = wishes.withLock { wishes in
      let isOver = now - wishes.lastUsedMs >= Double(keepAliveMs)
      if isOver { wishes.isAwake = false }
      return isOver
    }
    if !isOver { return request() }
    timer?.cancel()
    timer = nil
    contents.isAsleep = true
    endResidency()
  }

  private func endResidency() {
    if !contents.isRequested { return }
    contents.isRequested = false
    set.endResidency()
  }

  /// In this order the system gives the memory back; and only where the GPU has done something before.
  private func letGo() {
    timer?.cancel()
    timer = nil
    applyChanges()
    if contents.wasEverRequested && !wishes.withLock({ $0.hasRun }) { runSomething() }
    endResidency()
    set.removeAllAllocations()
    set.commit()
    for queue in contents.queues { queue.removeResidencySet(set) }
    contents = Contents()
  }

  /// The smallest GPU work there is: macOS keeps the memory of a process that ended residency without any.
  private func runSomething() {
    guard let buffer = metal.makeBuffer(length: 4, options: .storageModePrivate),
      let commands = metal.makeCommandQueue()?.makeCommandBuffer(), let encoder = commands.makeBlitCommandEncoder()
    else { return }
    encoder.fill(buffer: buffer, range: 0..<4, value: 0)
    encoder.endEncoding()
    commands.commit()
    commands.waitUntilCompleted()
  }
}

#endif
