import CHeadrace

/// Handles by number: a closed one is told from its successors by its generation.
///
/// A handle is kind (4 bits), generation (12 bits), index (16 bits), from the top.
final class HandleTable: Sendable {
  /// Handles that can be open at the same time.
  static let capacity = 1 << 16
  /// Indices rest until so many are free, so that a generation returns late.
  private static let resting = 1024
  private static let generationMask: UInt32 = 0xfff

  private struct Entry {
    var generation: UInt32 = 0
    var resource: Resource?
    /// A device that is being closed: its rows can still be taken.
    var isClosing = false
  }

  private struct Table {
    var entries: [Entry] = []
    var free = Fifo<Int>()
    /// Open handles of each device that is open.
    var counts: [ObjectIdentifier: Int] = [:]
  }

  private let table = Locked(Table())

  /// Gives `resource` a handle. HR_OUT_OF_MEMORY when all are in use, HR_CLOSED where its device is closed.
  func insert(_ resource: Resource, device: Device?) throws(Failure) -> hr_handle {
    try table.withLock { (table) throws(Failure) in
      if let device, table.counts[ObjectIdentifier(device)] == nil { throw Failure.closed("the device") }
      let index = try Self.freeIndex(&table)
      table.entries[index].resource = resource
      if let device {
        table.counts[ObjectIdentifier(device), default: 0] += 1
      } else {
        table.counts[ObjectIdentifier(resource)] = 0
      }
      return Self.handle(resource.kind, table.entries[index].generation, index)
    }
  }

  /// HR_CLOSED where it was closed, HR_INVALID where it never was a handle or names something else.
  func find<T: Resource>(_ handle: hr_handle, as type: T.Type) throws(Failure) -> T {
    let resource = try find(handle)
    guard let found = resource as? T else {
      throw Failure(
        Status.invalid, "handle \(hex(handle)) is \(resource.kind.named), and \(type.kind.named) is needed")
    }
    return found
  }

  /// The same for any kind.
  func find(_ handle: hr_handle) throws(Failure) -> Resource {
    try table.withLock { (table) throws(Failure) in try Self.resource(table, handle) }
  }

  /// The same for many, in one go.
  func find(_ many: UnsafeBufferPointer<hr_handle>) throws(Failure) -> [Resource] {
    try table.withLock { (table) throws(Failure) in
      var found: [Resource] = []
      found.reserveCapacity(many.count)
      for handle in many { found.append(try Self.resource(table, handle)) }
      return found
    }
  }

  /// Ends the handle, and where it names a device those of all that it made. Gives what the caller has to close, the
  /// device last. Its index is kept until ``release(_:)``.
  func remove(_ handle: hr_handle) throws(Failure) -> [Resource] {
    try table.withLock { (table) throws(Failure) in
      let resource = try Self.resource(table, handle)
      let own = Int(handle & 0xffff)
      guard resource is Device else {
        Self.free(&table, own)
        return [resource]
      }
      var removed: [Resource] = []
      for index in table.entries.indices {
        guard let child = table.entries[index].resource, child.owner === resource else { continue }
        removed.append(child)
        Self.free(&table, index)
      }
      table.counts[ObjectIdentifier(resource)] = nil
      table.entries[own].isClosing = true
      return removed + [resource]
    }
  }

  /// A device, also while it is being closed.
  func findDevice(_ handle: hr_handle) throws(Failure) -> Device {
    let resource = try table.withLock { (table) throws(Failure) in
      try Self.resource(table, handle, evenClosing: true)
    }
    guard let device = resource as? Device else {
      throw Failure(Status.invalid, "handle \(hex(handle)) is \(resource.kind.named), and a device is needed")
    }
    return device
  }

  /// Gives the index of a closed device back.
  func release(_ handle: hr_handle) {
    table.withLock { table in
      let index = Int(handle & 0xffff)
      guard table.entries[index].isClosing, table.entries[index].generation == (handle >> 16) & Self.generationMask
      else { return }
      Self.free(&table, index)
    }
  }

  /// Open handles of a device, its own not counted.
  func count(of device: Device) -> Int {
    table.withLock { $0.counts[ObjectIdentifier(device)] ?? 0 }
  }

  private static func resource(
    _ table: Table, _ handle: hr_handle, evenClosing: Bool = false
  ) throws(Failure) -> Resource {
    let index = Int(handle & 0xffff)
    guard let kind = Kind(rawValue: handle >> 28), index < table.entries.count else {
      throw Failure(Status.invalid, "\(hex(handle)) never was a handle")
    }
    let entry = table.entries[index]
    guard entry.generation == (handle >> 16) & generationMask, let resource = entry.resource,
      evenClosing || !entry.isClosing
    else {
      throw Failure(Status.closed, "handle \(hex(handle)), \(kind.named), is closed")
    }
    guard resource.kind == kind else {
      throw Failure(Status.invalid, "\(hex(handle)) never was a handle")
    }
    return resource
  }

  private static func freeIndex(_ table: inout Table) throws(Failure) -> Int {
    let isFull = table.entries.count == capacity
    if table.free.count > (isFull ? 0 : resting), let index = table.free.popFirst() { return index }
    if isFull {
      throw Failure(Status.outOfMemory, "all \(capacity) handles are in use; close some")
    }
    table.entries.append(Entry())
    return table.entries.count - 1
  }

  private static func free(_ table: inout Table, _ index: Int) {
    guard let resource = table.entries[index].resource else { return }
    table.entries[index] = Entry(generation: (table.entries[index].generation + 1) & generationMask)
    table.free.append(index)
    if let owner = resource.owner { table.counts[ObjectIdentifier(owner)]? -= 1 }
  }

  private static func handle(_ kind: Kind, _ generation: UInt32, _ index: Int) -> hr_handle {
    kind.rawValue << 28 | generation << 16 | UInt32(index)
  }
}

/// The process's handles.
let handles = HandleTable()

/// `0x30010002`
func hex(_ handle: hr_handle) -> String {
  "0x" + String(handle, radix: 16)
}
