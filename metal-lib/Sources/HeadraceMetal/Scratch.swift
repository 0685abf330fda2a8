import CHeadrace
import Foundation
import Metal

/// Scratch memory of all MTLIO queues of a device, bounded: buffers that come back are used again.
///
/// While others hold so much that a request would pass the bound, the request waits. It gets memory past the bound
/// in two cases, because an answer of nil would cancel its command buffer: when it is alone and larger than the whole
/// bound, and when nothing came back for ``patienceMs``, since a system that gathers all scratch memory of a command
/// buffer before it starts one load would wait for itself.
final class ScratchAllocator: NSObject, MTLIOScratchBufferAllocator, @unchecked Sendable {  // State behind a gate.
  /// Lengths are multiples of it, so that one buffer serves many loads.
  static let granule = 64 << 10

  private struct State {
    var inUse = 0
    var idle: [any MTLBuffer] = []
    var idleBytes = 0
    var mostInUse = 0
    var refusal: Failure?
  }

  private enum Grant {
    case reused(any MTLBuffer)
    /// Counted as in use already; the old ones are let go to make room.
    case fresh(dropped: [any MTLBuffer])
  }

  private let metal: any MTLDevice
  private let bound: Int
  private let patienceMs: Double
  private let gate = Gate(State())

  /// `bound` in bytes.
  init(metal: any MTLDevice, bound: Int, patienceMs: Double = 1000) {
    self.metal = metal
    self.bound = bound
    self.patienceMs = patienceMs
  }

  /// Bytes that were held at the same time at most.
  var mostInUse: Int { gate.withLock { $0.mostInUse } }
  /// Bytes that are held now, and bytes that are kept for use again.
  var holdings: (inUse: Int, idle: Int) { gate.withLock { ($0.inUse, $0.idleBytes) } }

  /// Why the last nil was given, told once.
  func takeRefusal() -> Failure? {
    gate.withLock { state in
      defer { state.refusal = nil }
      return state.refusal
    }
  }

  /// Nil only where Metal itself has no memory.
  func makeScratchBuffer(minimumSize: Int) -> (any MTLIOScratchBuffer)? {
    let wanted = max(minimumSize, 1)
    let (whole, overflow) = wanted.addingReportingOverflow(Self.granule - 1)
    let size = overflow ? wanted : whole / Self.granule * Self.granule
    let grant =
      gate.wait(until: { state in self.grant(&state, size) }, timeoutMs: patienceMs)
      ?? gate.withLock { state in Self.takeFresh(&state, size, dropping: state.idle.count) }
    switch grant {
    case .reused(let buffer):
      return ScratchBuffer(buffer, owner: self)
    case .fresh:
      if let buffer = metal.makeBuffer(length: size, options: .storageModeShared) {
        return ScratchBuffer(buffer, owner: self)
      }
      refuse(size)
      return nil
    }
  }

  private func grant(_ state: inout State, _ size: Int) -> Grant? {
    // A much larger one is left for a request that needs it.
    let fitting = state.idle.indices.filter { size <= state.idle[$0].length && state.idle[$0].length / 4 <= size }
    if let best = fitting.min(by: { state.idle[$0].length < state.idle[$1].length }) {
      let buffer = state.idle[best]
      if state.inUse + buffer.length <= bound || state.inUse == 0 {
        state.idle.remove(at: best)
        state.idleBytes -= buffer.length
        state.inUse += buffer.length
        state.mostInUse = max(state.mostInUse, state.inUse)
        return .reused(buffer)
      }
    }
    guard state.inUse == 0 || size <= bound - state.inUse else { return nil }
    var count = 0
    var kept = state.idleBytes
    while count < state.idle.count, state.inUse + kept + size > bound {
      kept -= state.idle[count].length
      count += 1
    }
    return Self.takeFresh(&state, size, dropping: count)
  }

  private static func takeFresh(_ state: inout State, _ size: Int, dropping count: Int) -> Grant {
    let dropped = Array(state.idle.prefix(count))
    state.idle.removeFirst(count)
    state.idleBytes -= dropped.reduce(0) { $0 + $1.length }
    state.inUse += size
    state.mostInUse = max(state.mostInUse, state.inUse)
    return .fresh(dropped: dropped)
  }

  private func refuse(_ size: Int) {
    gate.withLock { state in
      state.inUse -= size
      state.refusal = Failure(
        Status.outOfMemory, "Metal has no \(size) bytes of scratch memory; \(state.inUse) are in use")
    }
    gate.broadcast()
  }

  fileprivate func giveBack(_ buffer: any MTLBuffer) {
    gate.withLock { state in
      state.inUse -= buffer.length
      guard state.inUse + state.idleBytes + buffer.length <= bound else { return }
      state.idle.append(buffer)
      state.idleBytes += buffer.length
    }
    gate.broadcast()
  }
}

/// Goes back to its allocator when MTLIO lets go of it.
private final class ScratchBuffer: NSObject, MTLIOScratchBuffer {
  let buffer: any MTLBuffer
  private let owner: ScratchAllocator

  init(_ buffer: any MTLBuffer, owner: ScratchAllocator) {
    self.buffer = buffer
    self.owner = owner
  }

  deinit { owner.giveBack(buffer) }
}
