import CHeadrace
import Foundation
import Metal

/// One Metal device, with what its queues share.
final class Device: Resource, @unchecked Sendable {  // MTLDevice may be used by any thread; the rest locks itself.
  let metal: any MTLDevice
  let ordinal: UInt32
  let options: Options
  /// Of the memory, in bytes: mappings start and end on multiples of it.
  let pageSize: Int
  /// Threads that read and copy.
  let lanes: Lanes
  /// Threads that write and sync.
  let writeLanes: Lanes
  let streams: Streams
  let residency: Residency
  let mappings: MappingBudget
  let completions: Completions
  let zeroing: Zeroing
  let inlineCopies: InlineCopies
  /// Where Metal tells of events that were signalled elsewhere.
  let notifications = DispatchQueue(label: "headrace.events")
  private let life = Locked(Life())

  private struct Life {
    var isLost = false
    var isClosed = false
    /// Tickets that are not quiet.
    var inFlight = 0
    var isTornDown = false
    var handle: hr_handle = 0
  }

  init(metal: any MTLDevice, ordinal: UInt32, options: Options) throws(Failure) {
    self.metal = metal
    self.ordinal = ordinal
    self.options = options
    pageSize = hr_page_size()
    lanes = Lanes(count: options.lanes, pieceBytes: options.pieceBytes, syncKind: options.syncKind, name: "headrace-read")
    writeLanes = Lanes(
      count: options.writeLanes, pieceBytes: options.pieceBytes, syncKind: options.syncKind, name: "headrace-write")
    streams = Streams(device: metal, options: options)
    residency = Residency(metal: metal, enabled: options.usesResidency, keepAliveMs: options.keepAliveMs)
    mappings = MappingBudget(bytes: options.mapBudget)
    completions = try Completions()
    zeroing = Zeroing(metal: metal)
    inlineCopies = InlineCopies(maxBytes: options.inlineCopyBytes)
    super.init(kind: .device, device: nil)
  }

  override class var kind: Kind { .device }

  func opened(as handle: hr_handle) { life.withLock { $0.handle = handle } }

  /// Whether the GPU is gone for good.
  var isLost: Bool { life.withLock { $0.isLost } }

  func markLost() { life.withLock { $0.isLost = true } }

  /// HR_DEVICE_LOST after ``markLost()``, HR_CLOSED once closing has begun.
  func checkAlive() throws(Failure) {
    try life.withLock { (life) throws(Failure) in try Self.check(life, name: metal.name) }
  }

  /// Counts a ticket in flight, so that what it needs stays until ``ended()``. Throws as ``checkAlive()``.
  func begin() throws(Failure) {
    try life.withLock { (life) throws(Failure) in
      try Self.check(life, name: metal.name)
      life.inFlight += 1
    }
  }

  /// A ticket is quiet.
  func ended() {
    let isLast = life.withLock { life in
      life.inFlight -= 1
      return Self.mayTearDown(&life)
    }
    if isLast { tearDown() }
  }

  /// Refuses new work and tears down once all tickets are quiet. The handles of what it made were closed before.
  override func close() {
    let isLast = life.withLock { life in
      life.isClosed = true
      return Self.mayTearDown(&life)
    }
    if isLast { tearDown() }
  }

  private static func check(_ life: Life, name: String) throws(Failure) {
    if life.isClosed { throw Failure.closed("the device") }
    if life.isLost { throw Failure(Status.deviceLost, "\(name) is gone; open a device again") }
  }

  private static func mayTearDown(_ life: inout Life) -> Bool {
    guard life.isClosed, life.inFlight == 0, !life.isTornDown else { return false }
    life.isTornDown = true
    return true
  }

  /// In the background, since the last ticket may have ended on one of the lanes, and Metal may take its time.
  private func tearDown() {
    DispatchQueue.global().async { [self] in
      autoreleasepool {
        lanes.close()
        writeLanes.close()
        streams.close()
        residency.close()
      }
      let handle = life.withLock { $0.handle }
      completions.finish { if handle != 0 { handles.release(handle) } }
    }
  }
}
