import CHeadrace
import Metal

/// A new offset, in bytes, for all bindings of a sequence that have this slot.
struct SlotOffset: Sendable {
  let slot: Int
  let offset: Int
}

/// Dispatches that were checked once and run often, in order. It keeps the pipelines and buffers that it uses.
final class Sequence: Resource, @unchecked Sendable {  // Nothing changes.
  let dispatches: [Dispatch]
  /// Each once.
  let buffers: [Buffer]
  /// Buffers that need something done before the GPU may use them.
  let special: [Buffer]
  let hasProducts: Bool
  /// What is bound with each slot; nothing for one that no binding has.
  private let slots: [[Slot]]

  private struct Slot: Sendable {
    let buffer: Buffer
    let argument: BufferArgument?
    let kernel: String
  }

  /// HR_INVALID, HR_CLOSED, HR_OUT_OF_RANGE.
  init(
    device: Device, dispatches raw: UnsafeBufferPointer<hr_dispatch>, bindings: UnsafeBufferPointer<hr_binding>,
    constants: UnsafeBufferPointer<UInt8>
  ) throws(Failure) {
    try device.checkAlive()
    var dispatches: [Dispatch] = []
    dispatches.reserveCapacity(raw.count)
    for dispatch in raw {
      dispatches.append(
        try Dispatch.resolve(dispatch, device: device, bindings: bindings, constants: constants) { (number) throws(Failure) in
          guard let number = wholeNumber(number), let handle = hr_handle(exactly: number) else {
            throw Failure(Status.invalid, "\(number) never was a handle")
          }
          return try handles.find(handle, as: Buffer.self)
        })
    }
    let bound = dispatches.flatMap(\.bindings)
    slots = Self.slots(of: dispatches)
    var seen: Set<ObjectIdentifier> = []
    buffers = bound.map(\.buffer).filter { seen.insert(ObjectIdentifier($0)).inserted }
    special = buffers.filter { $0.mapping != nil || !$0.table.isEmpty }
    hasProducts = dispatches.contains(where: \.isProduct)
    self.dispatches = dispatches
    super.init(kind: .sequence, device: device)
  }

  override class var kind: Kind { .sequence }

  private static func slots(of dispatches: [Dispatch]) -> [[Slot]] {
    var slots: [[Slot]] = []
    for dispatch in dispatches {
      for binding in dispatch.bindings where binding.slot >= 0 {
        while slots.count <= binding.slot { slots.append([]) }
        let argument = dispatch.arguments.first { $0.index == binding.index }
        slots[binding.slot].append(Slot(buffer: binding.buffer, argument: argument, kernel: dispatch.name))
      }
    }
    return slots
  }

  var slotCount: Int { slots.count }

  /// Whether a replay may use `offsets`. HR_INVALID for a slot that there is not or an offset that is not aligned,
  /// HR_OUT_OF_RANGE.
  func check(_ offsets: [SlotOffset]) throws(Failure) {
    for offset in offsets {
      guard slots.indices.contains(offset.slot), !slots[offset.slot].isEmpty else {
        throw Failure(Status.invalid, "slot \(offset.slot): no binding of the sequence has it")
      }
      for slot in slots[offset.slot] {
        guard offset.offset >= 0, Dispatch.isInside(slot.buffer, offset.offset) else {
          throw Failure(
            Status.outOfRange, "slot \(offset.slot): offset \(offset.offset) is outside a buffer's \(slot.buffer.byteLength) bytes")
        }
        try slot.argument?.check(slot.buffer, offset: slot.buffer.offset + offset.offset, kernel: slot.kernel)
      }
    }
  }
}
