// Compute pipelines of the stand-in.
import CStandIn
import Foundation

final class StandInPipeline: NSObject, MTLComputePipelineState, @unchecked Sendable {
  // Sendable because all is constant.
  let owner: StandInDevice
  let kernel: CompiledKernel
  let label: String?
  let maxTotalThreadsPerThreadgroup: Int
  let needsWholeSimdgroups: Bool
  let supportIndirectCommandBuffers: Bool
  var device: any MTLDevice { owner }
  var threadExecutionWidth: Int { STANDIN_SIMD_WIDTH }
  var staticThreadgroupMemoryLength: Int { kernel.staticMemory }

  init(device: StandInDevice, kernel: CompiledKernel, descriptor: MTLComputePipelineDescriptor) {
    owner = device
    self.kernel = kernel
    label = descriptor.label
    let most = [descriptor.maxTotalThreadsPerThreadgroup, kernel.text.maxThreads].filter { $0 > 0 }.min()
    maxTotalThreadsPerThreadgroup = min(most ?? 1024, STANDIN_MAX_GROUP)
    needsWholeSimdgroups = descriptor.threadGroupSizeIsMultipleOfThreadExecutionWidth
    supportIndirectCommandBuffers = descriptor.supportIndirectCommandBuffers
    super.init()
  }
}

extension StandInDevice {
  public func makeComputePipelineState(function computeFunction: any MTLFunction) throws -> any MTLComputePipelineState {
    let descriptor = MTLComputePipelineDescriptor()
    descriptor.computeFunction = computeFunction
    return try makeComputePipelineState(descriptor: descriptor, options: [], reflection: nil)
  }

  public func makeComputePipelineState(
    descriptor: MTLComputePipelineDescriptor, options: MTLPipelineOption,
    reflection: AutoreleasingUnsafeMutablePointer<MTLAutoreleasedComputePipelineReflection?>?
  ) throws -> any MTLComputePipelineState {
    let function = ownFunction(of: descriptor, "makeComputePipelineState")
    let outcome = meet(STANDIN_PIPELINE)
    if outcome.met != 0, outcome.code != 0 {
      throw NSError(
        domain: "CompilerError", code: Int(outcome.code),
        userInfo: [NSLocalizedDescriptionKey: "Compiler encountered an internal error"])
    }
    let object = try archived(function, descriptor) ?? compiled(function, options)
    guard let kernel = object.kernels[function.name] else {
      throw libraryError(.functionNotFound, "the object has no function \(function.name)")
    }
    if kernel.staticMemory > maxThreadgroupMemoryLength {
      throw libraryError(
        .compileFailure,
        "Threadgroup memory size (\(kernel.staticMemory)) exceeds the maximum threadgroup memory allowed (\(maxThreadgroupMemoryLength))")
    }
    if !options.isDisjoint(with: [.argumentInfo, .bufferTypeInfo]) { reflection?.pointee = kernel.reflection }
    return StandInPipeline(device: self, kernel: kernel, descriptor: descriptor)
  }

  func ownFunction(of descriptor: MTLComputePipelineDescriptor, _ call: String) -> StandInFunction {
    guard let function = descriptor.computeFunction as? StandInFunction else { trap("\(call): computeFunction must not be nil") }
    guard function.library.owner === self else { trap("\(call): the function belongs to another device") }
    return function
  }

  private func archived(_ function: StandInFunction, _ descriptor: MTLComputePipelineDescriptor) throws -> CompiledObject? {
    for case let archive as StandInArchive in descriptor.binaryArchives ?? [] {
      if archive.owner !== self { trap("makeComputePipelineState: the archive belongs to another device") }
      guard let bytes = archive.find(function.key) else { continue }
      // An archive that does not serve is passed over, as Metal does.
      if let object = try? function.load(bytes) { return object }
    }
    return nil
  }

  private func compiled(_ function: StandInFunction, _ options: MTLPipelineOption) throws -> CompiledObject {
    if options.contains(.failOnBinaryArchiveMiss) {
      throw NSError(
        domain: MTLBinaryArchiveDomain, code: Int(MTLBinaryArchiveError.Code.unexpectedElement.rawValue),
        userInfo: [NSLocalizedDescriptionKey: "no binary archive has function \(function.name)"])
    }
    do throws(CompileError) { return try function.compile() } catch { throw libraryError(error) }
  }
}

/// What a pipeline says of an argument. All are said to be used.
final class StandInBinding: NSObject, MTLBufferBinding {
  let name: String
  let type: MTLBindingType
  let index: Int
  let bufferAlignment: Int
  let bufferDataSize: Int
  var isUsed: Bool { true }
  var isArgument: Bool { true }

  init(name: String, type: MTLBindingType, index: Int, bufferAlignment: Int, bufferDataSize: Int) {
    self.name = name
    self.type = type
    self.index = index
    self.bufferAlignment = bufferAlignment
    self.bufferDataSize = bufferDataSize
    super.init()
  }
}

extension CompiledKernel {
  var reflection: MTLComputePipelineReflection {
    let bindings = text.arguments.enumerated().compactMap { number, argument -> StandInBinding? in
      let (type, index): (MTLBindingType, Int)
      switch argument.source {
      case .place: return nil
      case .buffer(let at): (type, index) = (.buffer, at)
      case .groupMemory(let at): (type, index) = (.threadgroupMemory, at)
      }
      // Of what a pointer points to one is the least that makes sense, as Metal says it too.
      return StandInBinding(
        name: argument.name, type: type, index: index, bufferAlignment: argumentAlignments[number],
        bufferDataSize: max(argumentBytes[number], argumentAlignments[number]))
    }
    return MTLComputePipelineReflection(bindings: bindings)
  }
}
