import CHeadrace

/// An object of a submission, ready to be used by many requests: plain numbers, so that no reference is counted for each.
struct ProgramObject {
  /// Its number in the submission.
  let index: Int
  let id: ObjectIdentifier
  let kind: Kind
  /// Bytes that requests may lie in.
  let limit: Int
  let isWritable: Bool
  /// Of a buffer that the host sees.
  let address: UnsafeMutableRawPointer?
  /// Of a file, or the one behind a mapping; -1 without.
  let descriptor: Int32
  /// Bytes that the file behind a mapping must have.
  let mappedLength: Int

  init(_ resource: Resource, index: Int) {
    self.index = index
    id = ObjectIdentifier(resource)
    kind = resource.kind
    if let buffer = resource as? Buffer {
      limit = buffer.byteLength
      isWritable = buffer.isWritable
      address = buffer.bytes
      descriptor = buffer.mapping?.descriptor.number ?? -1
      mappedLength = buffer.mapping?.fileLength ?? 0
      return
    }
    let file = resource as? File
    limit = file?.requestLimit ?? 0
    isWritable = file?.isWritable ?? false
    address = nil
    descriptor = file?.descriptor.number ?? -1
    mappedLength = 0
  }
}

/// The objects of a submission, checked.
struct ProgramObjects {
  private let objects: [ProgramObject]
  let resources: [Resource]

  /// HR_CLOSED, HR_INVALID for an object of another device, HR_FILE_CHANGED.
  init(_ handles: UnsafeBufferPointer<hr_handle>, device: Device) throws(Failure) {
    resources = try HeadraceMetal.handles.find(handles)
    var objects: [ProgramObject] = []
    objects.reserveCapacity(handles.count)
    for resource in resources {
      guard resource.owner === device else {
        throw Failure(
          Status.invalid, "object \(objects.count) of the submission, \(resource.kind.named), is not of this device")
      }
      objects.append(ProgramObject(resource, index: objects.count))
    }
    self.objects = objects
  }

  /// HR_INVALID where number `index` is not a `kind`, or must be written to and cannot be.
  func need(_ index: Double, _ kind: Kind, request: Int, toWrite: Bool = false) throws(Failure) -> ProgramObject {
    guard let number = wholeNumber(index), number < objects.count, objects[number].kind == kind else {
      throw Failure(
        Status.invalid, "request \(request): needs \(kind.named) to use as object \(index), which is no \(kind)")
    }
    let object = objects[number]
    if toWrite, !object.isWritable {
      throw Failure(Status.invalid, "request \(request): needs \(kind.named) to write to, and it is read-only")
    }
    return object
  }

  func file(_ object: ProgramObject) -> File? { resources[object.index] as? File }
  func buffer(_ object: ProgramObject) -> Buffer? { resources[object.index] as? Buffer }

  /// The buffer that a binding of a dispatch names.
  func buffer(_ index: Double, request: Int) throws(Failure) -> Buffer {
    guard let buffer = buffer(try need(index, .buffer, request: request)) else {
      throw Failure(Status.invalid, "request \(request): object \(index) is no buffer")
    }
    return buffer
  }
}

/// The range of a request. HR_OUT_OF_RANGE.
func range(
  _ offset: Double, _ byteLength: Double, in object: ProgramObject, request: Int
) throws(Failure) -> (offset: Int, byteLength: Int) {
  guard let from = wholeNumber(offset), let count = wholeNumber(byteLength) else {
    throw Failure(
      Status.outOfRange,
      "request \(request): \(byteLength) bytes from \(offset) on are no whole numbers that lie in its \(object.limit) bytes")
  }
  guard contains(object.limit, from, count) else {
    throw rangeFailure("request \(request): \(object.kind): ", from, count, object.limit)
  }
  return (from, count)
}
