/// What a handle can name. The raw values are the ABI's.
enum Kind: UInt32, Sendable {
  case device = 1, file, buffer, heap, event, queue, library, pipeline, sequence

  /// With its article, for texts.
  var named: String { self == .event ? "an event" : "a \(self)" }
}

/// What a handle names. The handle table keeps it until its handle is closed; work in flight and children keep it
/// longer. What it owns is given back by `deinit`, when nobody uses it any more.
class Resource: @unchecked Sendable {  // Subclasses keep what changes behind locks.
  let kind: Kind
  /// Its device; nil for a device alone. Children keep their device's objects alive.
  let owner: Device?

  init(kind: Kind, device: Device?) {
    self.kind = kind
    owner = device
  }

  /// Which kind a class stands for; each subclass says its own.
  class var kind: Kind { .device }

  /// The handle was closed: called once, with no lock held. Others may still be using the object.
  func close() {}
}
