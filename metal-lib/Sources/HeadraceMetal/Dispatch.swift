import CHeadrace
import Metal

/// A buffer at an argument of a kernel.
struct Binding: Sendable {
  let buffer: Buffer
  /// Bytes from the start of the MTLBuffer.
  let offset: Int
  let index: Int
  /// In a sequence: which number of a replay gives another offset; -1 for none.
  let slot: Int
}

/// One kernel launch, checked.
struct Dispatch: Sendable {
  /// Buffer arguments that a kernel can have.
  static let maxBuffers = 31
  static let maxConstantsLength = 4096
  /// Width of a threadgroup where the caller leaves the choice, as kernels of the portable header expect it.
  static let defaultGroup = 256

  enum Work: Sendable {
    case kernel(KernelLaunch)
    case product(ProductLaunch)
  }

  let name: String
  let work: Work
  let bindings: [Binding]
  /// Buffers that it reads or writes.
  let arguments: [BufferArgument]
  /// Buffers that need something done before the GPU may use them: mappings and address tables.
  let special: [Buffer]

  var isProduct: Bool {
    if case .product = work { return true }
    return false
  }

  /// `bindings` and `constants` are all of the call; `buffer` finds the buffer that a binding names. HR_INVALID,
  /// HR_CLOSED, HR_OUT_OF_RANGE, and what `buffer` throws.
  static func resolve(
    _ raw: hr_dispatch, device: Device, bindings: UnsafeBufferPointer<hr_binding>, constants: UnsafeBufferPointer<UInt8>,
    buffer: (Double) throws(Failure) -> Buffer
  ) throws(Failure) -> Dispatch {
    let pipeline = try handles.find(raw.pipeline, as: Launchable.self)
    guard pipeline.device === device else { throw Failure(Status.invalid, "pipeline \(pipeline.name) is of another device") }
    let first = Int(raw.first_binding)
    let constantsStart = Int(raw.constants_offset)
    let constantsLength = Int(raw.constants_length)
    guard contains(bindings.count, first, Int(raw.binding_count)) else {
      throw Failure(Status.outOfRange, "\(pipeline.name): bindings \(first) to \(first + Int(raw.binding_count)) of \(bindings.count)")
    }
    guard contains(constants.count, constantsStart, constantsLength), constantsLength <= maxConstantsLength else {
      throw Failure(
        Status.outOfRange,
        "\(pipeline.name): \(constantsLength) bytes of constants from \(constantsStart) on of \(constants.count); \(maxConstantsLength) at most")
    }
    var used: UInt32 = 0
    if constantsLength > 0 { try use(Double(raw.constants_index), &used, pipeline) }
    var resolved: [Binding] = []
    resolved.reserveCapacity(Int(raw.binding_count))
    for binding in bindings[first..<first + Int(raw.binding_count)] {
      try use(binding.index, &used, pipeline)
      resolved.append(try resolve(binding, buffer: try buffer(binding.buffer), pipeline))
    }
    let index = constantsLength > 0 ? Int(raw.constants_index) : nil
    let (work, arguments) = try work(raw, pipeline, resolved, constants[constantsStart..<constantsStart + constantsLength])
    try checkArguments(pipeline, arguments, resolved, constants: index, constantsLength)
    return Dispatch(
      name: pipeline.name, work: work, bindings: resolved, arguments: arguments,
      special: resolved.map(\.buffer).filter { $0.mapping != nil || !$0.table.isEmpty })
  }

  private static func work(
    _ raw: hr_dispatch, _ launchable: Launchable, _ bindings: [Binding], _ constants: Slice<UnsafeBufferPointer<UInt8>>
  ) throws(Failure) -> (Work, [BufferArgument]) {
    if let product = launchable as? Product {
      let launch = try product.launch(rows: raw.threads.0, bindings, constantsLength: constants.count)
      return (.product(launch), launch.arguments)
    }
    guard let pipeline = launchable as? Pipeline else {
      throw Failure(Status.invalid, "\(launchable.name): cannot be launched")
    }
    if pipeline.needsGroupMemory, raw.threadgroup_memory == 0 {
      throw Failure(Status.invalid, "\(pipeline.name): needs threadgroup memory, and the launch gives none")
    }
    let launch = KernelLaunch(
      pipeline: pipeline, constants: Array(constants), constantsIndex: Int(raw.constants_index),
      threads: try grid(raw, pipeline), group: try group(raw, pipeline), groupMemory: try groupMemory(raw, pipeline))
    return (.kernel(launch), pipeline.arguments)
  }

  /// All that the kernel uses is bound, and large enough to be used.
  private static func checkArguments(
    _ pipeline: Launchable, _ arguments: [BufferArgument], _ bindings: [Binding], constants index: Int?,
    _ constantsLength: Int
  ) throws(Failure) {
    for argument in arguments {
      if let binding = bindings.first(where: { $0.index == argument.index }) {
        try argument.check(binding.buffer, offset: binding.offset, kernel: pipeline.name)
      } else if argument.index == index {
        try argument.check(offset: 0, length: constantsLength, kernel: pipeline.name)
      } else {
        throw Failure(Status.invalid, "\(pipeline.name): argument \(argument.name) at buffer index \(argument.index) is not bound")
      }
    }
  }

  /// Each argument is bound once.
  private static func use(_ index: Double, _ used: inout UInt32, _ pipeline: Launchable) throws(Failure) {
    guard let index = wholeNumber(index), index < maxBuffers else {
      throw Failure(Status.invalid, "\(pipeline.name): buffer index \(index) must be in 0 to \(maxBuffers - 1)")
    }
    guard used & 1 << UInt32(index) == 0 else { throw Failure(Status.invalid, "\(pipeline.name): buffer index \(index) is bound twice") }
    used |= 1 << UInt32(index)
  }

  private static func resolve(_ raw: hr_binding, buffer: Buffer, _ pipeline: Launchable) throws(Failure) -> Binding {
    guard buffer.owner === pipeline.device else {
      throw Failure(Status.invalid, "\(pipeline.name): the buffer at index \(raw.index) is of another device")
    }
    guard let index = wholeNumber(raw.index), let slot = Int(exactly: raw.slot), slot >= -1, slot < 1 << 20 else {
      throw Failure(Status.invalid, "\(pipeline.name): slot \(raw.slot) of the binding at index \(raw.index) must be -1 or a number below \(1 << 20)")
    }
    guard let offset = wholeNumber(raw.offset), isInside(buffer, offset) else {
      throw Failure(
        Status.outOfRange, "\(pipeline.name): offset \(raw.offset) of the buffer at index \(index) is outside its \(buffer.byteLength) bytes")
    }
    return Binding(buffer: buffer, offset: buffer.offset + offset, index: index, slot: slot)
  }

  /// Whether a kernel may be given `buffer` from `offset` on: one byte at least, but for an empty buffer.
  static func isInside(_ buffer: Buffer, _ offset: Int) -> Bool {
    offset < buffer.byteLength || (offset == 0 && buffer.byteLength == 0)
  }

  private static func grid(_ raw: hr_dispatch, _ pipeline: Pipeline) throws(Failure) -> MTLSize {
    let (width, height, depth) = raw.threads
    return MTLSize(width: Int(width), height: max(1, Int(height)), depth: max(1, Int(depth)))
  }

  /// What the caller says, or a width that suits a row of threads, or a square-ish one for more dimensions.
  private static func group(_ raw: hr_dispatch, _ pipeline: Pipeline) throws(Failure) -> MTLSize {
    let most = pipeline.metal.maxTotalThreadsPerThreadgroup
    let (width, height, depth) = raw.group
    if width == 0 {
      if raw.threads.1 <= 1 && raw.threads.2 <= 1 { return MTLSize(width: min(most, defaultGroup), height: 1, depth: 1) }
      let width = min(most, pipeline.metal.threadExecutionWidth)
      return MTLSize(width: width, height: max(1, min(most, defaultGroup) / width), depth: 1)
    }
    let size = MTLSize(width: Int(width), height: max(1, Int(height)), depth: max(1, Int(depth)))
    let (plane, wide) = size.width.multipliedReportingOverflow(by: size.height)
    let (threads, deep) = plane.multipliedReportingOverflow(by: size.depth)
    guard !wide, !deep, threads <= most else {
      throw Failure(
        Status.outOfRange, "\(pipeline.name): a threadgroup of \(size.width) x \(size.height) x \(size.depth) threads; \(most) at most")
    }
    return size
  }

  private static func groupMemory(_ raw: hr_dispatch, _ pipeline: Pipeline) throws(Failure) -> Int {
    // Metal takes multiples of 16.
    let wanted = (Int(raw.threadgroup_memory) + 15) & ~15
    let own = pipeline.metal.staticThreadgroupMemoryLength
    let most = pipeline.device.metal.maxThreadgroupMemoryLength
    guard wanted + own <= most else {
      throw Failure(
        Status.outOfRange, "\(pipeline.name): \(wanted) bytes of threadgroup memory beside the kernel's own \(own); \(most) at most")
    }
    return wanted
  }

}

/// How a kernel is launched.
struct KernelLaunch: Sendable {
  let pipeline: Pipeline
  let constants: [UInt8]
  let constantsIndex: Int
  let threads: MTLSize
  let group: MTLSize
  /// Bytes at threadgroup index 0; 0 is none.
  let groupMemory: Int

  /// No threads: there is nothing to launch.
  var isEmpty: Bool { threads.width == 0 }
}
