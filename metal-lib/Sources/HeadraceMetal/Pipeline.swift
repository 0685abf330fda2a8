import CHeadrace
import Metal

/// What a launch names: a kernel, or a product of matrices.
class Launchable: Resource, @unchecked Sendable {  // Nothing of it changes.
  let name: String
  let device: Device

  init(name: String, device: Device) {
    self.name = name
    self.device = device
    super.init(kind: .pipeline, device: device)
  }

  override class var kind: Kind { .pipeline }
}

/// A kernel that can be dispatched.
final class Pipeline: Launchable, @unchecked Sendable {  // MTLComputePipelineState may be used by any thread.
  let metal: any MTLComputePipelineState
  let isFromArchive: Bool
  /// Buffers that the kernel reads or writes, each of which a launch must bind.
  let arguments: [BufferArgument]
  /// Whether it needs memory at threadgroup index 0.
  let needsGroupMemory: Bool

  private init(
    device: Device, metal: any MTLComputePipelineState, name: String, isFromArchive: Bool,
    _ reflection: MTLComputePipelineReflection?
  ) {
    let used = reflection?.bindings.filter(\.isUsed) ?? []
    arguments = used.compactMap { $0 as? any MTLBufferBinding }.filter { $0.type == .buffer }.map(BufferArgument.init)
    needsGroupMemory = used.contains { $0.type == .threadgroupMemory && $0.isArgument && $0.index == 0 }
    self.metal = metal
    self.isFromArchive = isFromArchive
    super.init(name: name, device: device)
  }

  /// Compiles a function, or takes it from the archive at `archive`, which learns it otherwise. An archive only saves
  /// time: one that cannot be read or written changes nothing else. HR_INVALID, HR_COMPILE_FAILED, HR_DEVICE_LOST.
  static func make(
    library: Library, function name: String, constants: [hr_constant], archive path: String?
  ) throws(Failure) -> Pipeline {
    let device = library.device
    try device.checkAlive()
    let descriptor = MTLComputePipelineDescriptor()
    descriptor.label = name
    descriptor.computeFunction = try library.function(name, constants: constants)
    let archive = path.map { Archive(path: $0, device: device.metal) }
    var reflection: MTLComputePipelineReflection?
    if let found = archive?.find(descriptor, &reflection) {
      return Pipeline(device: device, metal: found, name: name, isFromArchive: true, reflection)
    }
    do {
      let metal = try device.metal.makeComputePipelineState(descriptor: descriptor, options: .argumentInfo, reflection: &reflection)
      archive?.add(descriptor)
      return Pipeline(device: device, metal: metal, name: name, isFromArchive: false, reflection)
    } catch {
      throw compileFailure("pipeline \(name)", error)
    }
  }

  var info: hr_pipeline_info {
    hr_pipeline_info(
      simd_width: UInt32(metal.threadExecutionWidth), max_threads: UInt32(metal.maxTotalThreadsPerThreadgroup),
      static_threadgroup_memory: UInt32(metal.staticThreadgroupMemoryLength), from_archive: isFromArchive ? 1 : 0)
  }
}

/// A buffer argument of a kernel.
struct BufferArgument: Sendable {
  let name: String
  let index: Int
  /// Bytes that must lie behind the offset: of a struct, or of one element that a pointer points to.
  let byteLength: Int
  /// Offsets are multiples of it.
  let alignment: Int
  /// Whether these are all the bytes that are used; then they must lie in what the buffer was made for, not in what is
  /// behind it up to the end of its memory.
  let isWhole: Bool

  init(name: String, index: Int, byteLength: Int, alignment: Int, isWhole: Bool = false) {
    self.name = name
    self.index = index
    self.byteLength = byteLength
    self.alignment = alignment
    self.isWhole = isWhole
  }

  init(_ binding: any MTLBufferBinding) {
    self.init(
      name: binding.name, index: binding.index, byteLength: binding.bufferDataSize, alignment: max(1, binding.bufferAlignment))
  }

  /// `offset` is from the start of the MTLBuffer. HR_INVALID for one that is not aligned, HR_OUT_OF_RANGE.
  func check(_ buffer: Buffer, offset: Int, kernel: String) throws(Failure) {
    let end = isWhole ? buffer.offset + buffer.byteLength : buffer.metal.length
    try check(offset: offset, length: end, kernel: kernel)
  }

  /// HR_INVALID for an offset that is not aligned, HR_OUT_OF_RANGE.
  func check(offset: Int, length: Int, kernel: String) throws(Failure) {
    guard offset % alignment == 0 else {
      throw Failure(Status.invalid, "\(kernel): offset \(offset) of \(name) must be a multiple of \(alignment)")
    }
    guard contains(length, offset, byteLength) else {
      throw Failure(Status.outOfRange, "\(kernel): \(name) needs \(byteLength) bytes from \(offset) on of \(length)")
    }
  }
}
