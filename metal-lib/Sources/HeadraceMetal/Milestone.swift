import Metal

/// A value of a shared event that is reached when loads are done, or will not be done any more.
///
/// MTLIO signals it behind the loads, so that the GPU or another MTLIO command buffer goes on without this process.
/// What was cancelled or has failed may not signal, so ``reach()`` follows from the CPU in every case: nobody is left
/// waiting.
struct Milestone: @unchecked Sendable {  // MTLSharedEvent may be used by any thread.
  let event: any MTLSharedEvent
  let value: UInt64

  func reach() {
    if event.signaledValue < value { event.signaledValue = value }
  }
}

/// Shared events that are used again, each time with the next value.
final class Milestones: Sendable {
  /// Events that are kept when they are not in use.
  private static let kept = 64

  private struct Idle: @unchecked Sendable {
    var events = Fifo<Milestone>()
  }

  private let metal: Unchecked<any MTLDevice>
  private let idle = Locked(Idle())

  init(metal: any MTLDevice) { self.metal = Unchecked(metal) }

  /// Values that nobody signals or waits for; nil where Metal makes no events.
  func take(_ count: Int) -> [Milestone]? {
    var taken: [Milestone] = []
    while taken.count < count {
      // The one that has rested longest.
      if let used = idle.withLock({ $0.events.popFirst() }) {
        taken.append(Milestone(event: used.event, value: used.value + 1))
      } else if let event = metal.value.makeSharedEvent() {
        taken.append(Milestone(event: event, value: 1))
      } else {
        giveBack(taken)
        return nil
      }
    }
    return taken
  }

  /// Nobody signals them any more, nor waits for them.
  func giveBack(_ milestones: [Milestone]) {
    idle.withLock { idle in
      for milestone in milestones where idle.events.count < Self.kept { idle.events.append(milestone) }
    }
  }
}
