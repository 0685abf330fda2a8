import Foundation
import Metal

/// Keeps a device's memory wired for the GPU by one residency set, where the system has them (macOS 15): without, each
/// burst of GPU work after a pause waits for its memory. Residency is a matter of speed alone, so nothing here fails.
/// No call waits: all work on the set is done in the background, one change after the other.
final class Residency: Sendable {
  let keeper: (any ResidencyKeeper)?

  /// Residency is asked for again and again until `keepAliveMs` after the last ``used()``.
  init(metal: any MTLDevice, enabled: Bool, keepAliveMs: Int) {
    #if HEADRACE_SDK_15
      if enabled, #available(macOS 15.0, *) {
        keeper = ResidentSet(metal: metal, keepAliveMs: keepAliveMs)
        return
      }
    #endif
    keeper = nil
  }

  /// Whether there is a set.
  var isActive: Bool { keeper != nil }

  /// Counts for each call; a part of a heap stands for its heap.
  func add(_ buffer: any MTLBuffer) { keeper?.add(buffer) }

  /// Undoes one ``add(_:)``. The buffer's memory ends after it left the set, soon.
  func remove(_ buffer: any MTLBuffer) { keeper?.remove(buffer) }

  /// Work of `queue` finds the memory resident, until ``detach(from:)``.
  func attach(to queue: any MTLCommandQueue) { keeper?.attach(queue) }
  func detach(from queue: any MTLCommandQueue) { keeper?.detach(queue) }

  /// GPU work was committed: the keep-alive starts or goes on.
  func used() { keeper?.used() }

  /// Lets go of all memory; waits for that. Nothing changes any more afterwards.
  func close() { keeper?.close() }
}

/// ``ResidentSet`` as systems before macOS 15 can name it.
protocol ResidencyKeeper: Sendable {
  func add(_ buffer: any MTLBuffer)
  func remove(_ buffer: any MTLBuffer)
  func attach(_ queue: any MTLCommandQueue)
  func detach(_ queue: any MTLCommandQueue)
  func used()
  func close()
}
