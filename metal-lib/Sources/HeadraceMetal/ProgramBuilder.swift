import CHeadrace

/// Checks a submission and resolves it into a ``Program``. Nothing has happened when it throws.
struct ProgramBuilder {
  private let device: Device
  private let raw: hr_submission
  private let objects: ProgramObjects
  private var program = Program()
  private var step = MoveStep()
  /// GPU work that is still growing.
  private var operations: [GPUOperation] = []

  /// HR_INVALID, HR_CLOSED, HR_OUT_OF_RANGE, HR_FILE_CHANGED, HR_UNSUPPORTED.
  static func build(_ raw: hr_submission, device: Device) throws(Failure) -> Program {
    var builder = try ProgramBuilder(raw, device)
    try builder.addRequests()
    try builder.finish()
    return builder.program
  }

  private init(_ raw: hr_submission, _ device: Device) throws(Failure) {
    self.raw = raw
    self.device = device
    try Self.checkCounts(raw)
    objects = try ProgramObjects(
      UnsafeBufferPointer(start: raw.objects, count: Int(raw.object_count)), device: device)
  }

  private static func checkCounts(_ raw: hr_submission) throws(Failure) {
    let arrays: [(String, UInt32, Bool)] = [
      ("requests", raw.request_count, raw.requests != nil), ("objects", raw.object_count, raw.objects != nil),
      ("dispatches", raw.dispatch_count, raw.dispatches != nil), ("bindings", raw.binding_count, raw.bindings != nil),
      ("constants", raw.constants_length, raw.constants != nil), ("offsets", raw.offset_count, raw.offsets != nil),
    ]
    for (name, count, isThere) in arrays where count > 0 && !isThere {
      throw Failure(Status.invalid, "\(count) \(name) are said to be there, and the pointer is NULL")
    }
  }

  private mutating func addRequests() throws(Failure) {
    let requests = UnsafeBufferPointer(start: raw.requests, count: Int(raw.request_count))
    for number in requests.indices {
      let request = requests[number]
      switch Int(exactly: request.op) {
      case HR_READ: try addRead(request, number)
      case HR_WRITE: try addWrite(request, number)
      case HR_COPY: try addCopy(request, number)
      case HR_SYNC: try addSync(request, number)
      case HR_BARRIER: endMoves()
      case HR_DISPATCH: try addDispatch(request, number)
      case HR_REPLAY: try addReplay(request, number)
      case HR_SIGNAL: try addEvent(request, number, isSignal: true)
      case HR_WAIT: try addEvent(request, number, isSignal: false)
      default: throw Failure(Status.invalid, "request \(number): unknown operation \(request.op)")
      }
    }
  }

  private mutating func addRead(_ request: hr_request, _ number: Int) throws(Failure) {
    let file = try objects.need(request.source, .file, request: number)
    let buffer = try objects.need(request.target, .buffer, request: number, toWrite: true)
    let (from, count) = try range(request.source_offset, request.byte_length, in: file, request: number)
    let (to, _) = try range(request.target_offset, request.byte_length, in: buffer, request: number)
    step.isCopiesOnly = false
    if count == 0 { return }
    guard let source = objects.file(file) else { return }
    if let stream = source.stream, let target = objects.buffer(buffer) {
      step.loads.append(
        StreamLoad(
          file: stream, fileOffset: from, target: target, targetOffset: to, byteLength: count, request: number))
    } else if let address = buffer.address {
      step.reads.append(
        Move(
          operation: .read, request: number, descriptor: file.descriptor, fileOffset: from, target: address + to,
          source: nil, byteLength: count))
    } else if let target = objects.buffer(buffer) {
      step.stagedReads.append(
        StagedMove(
          request: number, descriptor: source.descriptor, fileOffset: from, buffer: target, bufferOffset: to,
          byteLength: count))
    }
  }

  private mutating func addWrite(_ request: hr_request, _ number: Int) throws(Failure) {
    let file = try objects.need(request.target, .file, request: number, toWrite: true)
    let buffer = try objects.need(request.source, .buffer, request: number)
    let (to, count) = try range(request.target_offset, request.byte_length, in: file, request: number)
    let (from, _) = try range(request.source_offset, request.byte_length, in: buffer, request: number)
    step.isCopiesOnly = false
    if count == 0 { return }
    if let address = buffer.address {
      step.writes.append(
        Move(
          operation: .write, request: number, descriptor: file.descriptor, fileOffset: to, target: nil,
          source: address + from, byteLength: count))
    } else if let target = objects.file(file), let source = objects.buffer(buffer) {
      step.stagedWrites.append(
        StagedMove(
          request: number, descriptor: target.descriptor, fileOffset: to, buffer: source, bufferOffset: from,
          byteLength: count))
    }
  }

  private mutating func addCopy(_ request: hr_request, _ number: Int) throws(Failure) {
    let source = try objects.need(request.source, .buffer, request: number)
    let target = try objects.need(request.target, .buffer, request: number, toWrite: true)
    let (from, count) = try range(request.source_offset, request.byte_length, in: source, request: number)
    let (to, _) = try range(request.target_offset, request.byte_length, in: target, request: number)
    if source.id == target.id, abs(from - to) < count {
      throw Failure(Status.invalid, "request \(number): source and target of the copy overlap")
    }
    if count == 0 { return }
    if let sourceAddress = source.address, let targetAddress = target.address {
      step.copyBytes += count
      step.reads.append(
        Move(
          operation: .copy, request: number, descriptor: source.descriptor, fileOffset: 0, target: targetAddress + to,
          source: UnsafeRawPointer(sourceAddress + from), byteLength: count, mappedLength: source.mappedLength))
    } else if let source = objects.buffer(source), let target = objects.buffer(target) {
      step.isCopiesOnly = false
      step.copies.append(
        .copy(source: source, sourceOffset: from, target: target, targetOffset: to, byteLength: count))
    }
  }

  private mutating func addSync(_ request: hr_request, _ number: Int) throws(Failure) {
    let file = try objects.need(request.source, .file, request: number)
    step.isCopiesOnly = false
    step.writes.append(
      Move(
        operation: .sync, request: number, descriptor: file.descriptor, fileOffset: 0, target: nil, source: nil,
        byteLength: 0))
  }

  private mutating func addDispatch(_ request: hr_request, _ number: Int) throws(Failure) {
    endMoves()
    guard let index = wholeNumber(request.source), index < Int(raw.dispatch_count) else {
      throw Failure(
        Status.invalid, "request \(number): needs a dispatch, and \(request.source) is none of \(raw.dispatch_count)")
    }
    let objects = self.objects
    let dispatch = try Dispatch.resolve(
      raw.dispatches[index], device: device,
      bindings: UnsafeBufferPointer(start: raw.bindings, count: Int(raw.binding_count)),
      constants: UnsafeBufferPointer(start: raw.constants, count: Int(raw.constants_length))
    ) { (buffer) throws(Failure) in try objects.buffer(buffer, request: number) }
    operations.append(.dispatch(dispatch))
  }

  private mutating func addReplay(_ request: hr_request, _ number: Int) throws(Failure) {
    endMoves()
    let object = try objects.need(request.source, .sequence, request: number)
    guard let sequence = objects.resources[object.index] as? Sequence,
      let first = wholeNumber(request.source_offset), let count = wholeNumber(request.byte_length),
      contains(Int(raw.offset_count), first, count)
    else {
      throw Failure(
        Status.invalid,
        "request \(number): offsets \(request.source_offset) and \(request.byte_length) on of \(raw.offset_count)")
    }
    var offsets: [SlotOffset] = []
    offsets.reserveCapacity(count)
    for index in first..<first + count {
      let (slot, offset) = (raw.offsets[index].slot, raw.offsets[index].offset)
      guard let slot = wholeNumber(slot) else {
        throw Failure(Status.invalid, "request \(number): slot \(slot) is no non-negative whole number")
      }
      guard let offset = wholeNumber(offset) else {
        throw Failure(Status.outOfRange, "request \(number): offset \(offset) of slot \(slot) is no offset of a buffer")
      }
      offsets.append(SlotOffset(slot: slot, offset: offset))
    }
    try sequence.check(offsets)
    operations.append(.replay(sequence, offsets))
  }

  private mutating func addEvent(_ request: hr_request, _ number: Int, isSignal: Bool) throws(Failure) {
    endMoves()
    endOperations()
    let object = try objects.need(request.source, .event, request: number)
    guard let event = objects.resources[object.index] as? Event else { return }
    guard let value = wholeNumber(request.byte_length) else {
      throw Failure(
        Status.invalid, "request \(number): an event's value is a whole number below 2^53, not \(request.byte_length)")
    }
    program.steps.append(isSignal ? .signal(event, UInt64(value)) : .wait(event, UInt64(value)))
  }

  /// Ends the requests that run side by side.
  private mutating func endMoves() {
    if step.isEmpty {
      step = MoveStep()
      return
    }
    if step.isGPUOnly {
      // Copies next to each other may overlap in time, and these are to follow those before.
      if case .copy = operations.last { endOperations() }
      operations += step.copies
    } else if step.isLoadsOnly {
      endOperations()
      program.add(step.loads)
    } else {
      endOperations()
      program.needsGPU = program.needsGPU || !step.copies.isEmpty || step.needsStaging
      program.steps.append(.moves(step))
    }
    step = MoveStep()
  }

  private mutating func endOperations() {
    if operations.isEmpty { return }
    program.needsGPU = true
    program.add(operations)
    operations = []
  }

  /// Collects what has to be kept, checked and waited for.
  private mutating func finish() throws(Failure) {
    endMoves()
    endOperations()
    program.keep = objects.resources
    var latches: [Step] = []
    var buffers: [Buffer] = []
    for resource in program.keep {
      if let buffer = resource as? Buffer { buffers.append(buffer) }
      if let sequence = resource as? Sequence { buffers += sequence.buffers }
    }
    while let buffer = buffers.popLast() {
      if let mapping = buffer.mapping { program.mappings.append(mapping) }
      if let zeroed = buffer.zeroed, !zeroed.isOpen { latches.append(.latch(zeroed)) }
      buffers += buffer.table
    }
    program.steps.insert(contentsOf: latches, at: 0)
    try program.checkFiles()
  }
}

extension MoveStep {
  fileprivate var needsStaging: Bool { !stagedReads.isEmpty || !stagedWrites.isEmpty }
}
