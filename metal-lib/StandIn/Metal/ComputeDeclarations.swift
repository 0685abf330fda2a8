/// Compute, as Swift imports it from Metal: libraries, functions, pipelines, archives and the compute encoder. Names,
/// labels, optionality and raw values are those of the SDK; what the library does not use is left out.
import Foundation

public enum MTLLanguageVersion: UInt, Sendable {
  case version1_1 = 0x10001
  case version1_2 = 0x10002
  case version2_0 = 0x20000
  case version2_1 = 0x20001
  case version2_2 = 0x20002
  case version2_3 = 0x20003
  case version2_4 = 0x20004
  case version3_0 = 0x30000
  case version3_1 = 0x30001
  case version3_2 = 0x30002
  case version4_0 = 0x40000
}

/// macOS 15.
public enum MTLMathMode: Int, Sendable {
  case safe = 0
  case relaxed = 1
  case fast = 2
}

/// macOS 15.
public enum MTLMathFloatingPointFunctions: Int, Sendable {
  case fast = 0
  case precise = 1
}

public enum MTLLibraryOptimizationLevel: Int, Sendable {
  case `default` = 0
  case size = 1
}

public enum MTLFunctionType: UInt, Sendable {
  case vertex = 1
  case fragment = 2
  case kernel = 3
  case visible = 5
  case intersection = 6
  case mesh = 7
  case object = 8
}

public let MTLLibraryErrorDomain = "MTLLibraryErrorDomain"

public struct MTLLibraryError {
  public enum Code: UInt, Sendable {
    case unsupported = 1
    case `internal` = 2
    case compileFailure = 3
    case compileWarning = 4
    case functionNotFound = 5
    case fileNotFound = 6
  }
}

public let MTLBinaryArchiveDomain = "MTLBinaryArchiveDomain"

public struct MTLBinaryArchiveError {
  public enum Code: UInt, Sendable {
    case none = 0
    case invalidFile = 1
    case unexpectedElement = 2
    case compilationFailure = 3
    case internalError = 4
  }
}

public struct MTLPipelineOption: OptionSet, Sendable {
  public let rawValue: UInt
  public init(rawValue: UInt) { self.rawValue = rawValue }
  public static let argumentInfo = MTLPipelineOption(rawValue: 1 << 0)
  public static let bindingInfo = MTLPipelineOption(rawValue: 1 << 0)
  public static let bufferTypeInfo = MTLPipelineOption(rawValue: 1 << 1)
  public static let failOnBinaryArchiveMiss = MTLPipelineOption(rawValue: 1 << 2)
}

public struct MTLResourceUsage: OptionSet, Sendable {
  public let rawValue: UInt
  public init(rawValue: UInt) { self.rawValue = rawValue }
  public static let read = MTLResourceUsage(rawValue: 1 << 0)
  public static let write = MTLResourceUsage(rawValue: 1 << 1)
}

public struct MTLBarrierScope: OptionSet, Sendable {
  public let rawValue: UInt
  public init(rawValue: UInt) { self.rawValue = rawValue }
  public static let buffers = MTLBarrierScope(rawValue: 1 << 0)
  public static let textures = MTLBarrierScope(rawValue: 1 << 1)
  public static let renderTargets = MTLBarrierScope(rawValue: 1 << 2)
}

open class MTLCompileOptions: NSObject, NSCopying {
  /// Values are NSString or NSNumber.
  open var preprocessorMacros: [String: NSObject]?
  open var languageVersion: MTLLanguageVersion = .version3_2
  /// Deprecated in macOS 15. On by default, as Apple has it.
  open var fastMathEnabled = true
  /// macOS 15.
  open var mathMode: MTLMathMode = .fast
  /// macOS 15.
  open var mathFloatingPointFunctions: MTLMathFloatingPointFunctions = .fast
  open var preserveInvariance = false
  open var optimizationLevel: MTLLibraryOptimizationLevel = .default
  open var maxTotalThreadsPerThreadgroup = 0

  open func copy(with zone: NSZone? = nil) -> Any {
    let copy = MTLCompileOptions()
    copy.preprocessorMacros = preprocessorMacros
    copy.languageVersion = languageVersion
    copy.fastMathEnabled = fastMathEnabled
    copy.mathMode = mathMode
    copy.mathFloatingPointFunctions = mathFloatingPointFunctions
    copy.preserveInvariance = preserveInvariance
    copy.optimizationLevel = optimizationLevel
    copy.maxTotalThreadsPerThreadgroup = maxTotalThreadsPerThreadgroup
    return copy
  }
}

open class MTLFunctionConstant: NSObject {
  public let name: String
  public let type: MTLDataType
  public let index: Int
  public let required: Bool

  init(name: String, type: MTLDataType, index: Int, required: Bool) {
    self.name = name
    self.type = type
    self.index = index
    self.required = required
  }
}

public protocol MTLFunction: NSObjectProtocol {
  var label: String? { get set }
  var device: any MTLDevice { get }
  var functionType: MTLFunctionType { get }
  var name: String { get }
  var functionConstantsDictionary: [String: MTLFunctionConstant] { get }
}

public protocol MTLLibrary: NSObjectProtocol {
  var label: String? { get set }
  var device: any MTLDevice { get }
  var functionNames: [String] { get }
  func makeFunction(name functionName: String) -> (any MTLFunction)?
  func makeFunction(name: String, constantValues: MTLFunctionConstantValues) throws -> any MTLFunction
}

public enum MTLBindingType: Int, Sendable {
  case buffer = 0
  case threadgroupMemory = 1
  case texture = 2
  case sampler = 3
}

public protocol MTLBinding: NSObjectProtocol {
  var name: String { get }
  var type: MTLBindingType { get }
  var index: Int { get }
  var isUsed: Bool { get }
  var isArgument: Bool { get }
}

public protocol MTLBufferBinding: MTLBinding {
  var bufferAlignment: Int { get }
  var bufferDataSize: Int { get }
}

open class MTLComputePipelineReflection: NSObject {
  public let bindings: [any MTLBinding]

  init(bindings: [any MTLBinding]) {
    self.bindings = bindings
    super.init()
  }
}
public typealias MTLAutoreleasedComputePipelineReflection = MTLComputePipelineReflection

open class MTLComputePipelineDescriptor: NSObject, NSCopying {
  open var label: String?
  open var computeFunction: (any MTLFunction)?
  open var threadGroupSizeIsMultipleOfThreadExecutionWidth = false
  open var maxTotalThreadsPerThreadgroup = 0
  open var supportIndirectCommandBuffers = false
  open var binaryArchives: [any MTLBinaryArchive]?

  open func reset() {
    label = nil
    computeFunction = nil
    threadGroupSizeIsMultipleOfThreadExecutionWidth = false
    maxTotalThreadsPerThreadgroup = 0
    supportIndirectCommandBuffers = false
    binaryArchives = nil
  }

  open func copy(with zone: NSZone? = nil) -> Any {
    let copy = MTLComputePipelineDescriptor()
    copy.label = label
    copy.computeFunction = computeFunction
    copy.threadGroupSizeIsMultipleOfThreadExecutionWidth = threadGroupSizeIsMultipleOfThreadExecutionWidth
    copy.maxTotalThreadsPerThreadgroup = maxTotalThreadsPerThreadgroup
    copy.supportIndirectCommandBuffers = supportIndirectCommandBuffers
    copy.binaryArchives = binaryArchives
    return copy
  }
}

public protocol MTLComputePipelineState: NSObjectProtocol {
  var label: String? { get }
  var device: any MTLDevice { get }
  var maxTotalThreadsPerThreadgroup: Int { get }
  var threadExecutionWidth: Int { get }
  var staticThreadgroupMemoryLength: Int { get }
  var supportIndirectCommandBuffers: Bool { get }
}

open class MTLBinaryArchiveDescriptor: NSObject, NSCopying {
  open var url: URL?

  open func copy(with zone: NSZone? = nil) -> Any {
    let copy = MTLBinaryArchiveDescriptor()
    copy.url = url
    return copy
  }
}

public protocol MTLBinaryArchive: NSObjectProtocol {
  var label: String? { get set }
  var device: any MTLDevice { get }
  func addComputePipelineFunctions(descriptor: MTLComputePipelineDescriptor) throws
  func serialize(to url: URL) throws
}

public protocol MTLComputeCommandEncoder: MTLCommandEncoder {
  var dispatchType: MTLDispatchType { get }
  func setComputePipelineState(_ state: any MTLComputePipelineState)
  func setBytes(_ bytes: UnsafeRawPointer, length: Int, index: Int)
  func setBuffer(_ buffer: (any MTLBuffer)?, offset: Int, index: Int)
  func setBufferOffset(_ offset: Int, index: Int)
  func setThreadgroupMemoryLength(_ length: Int, index: Int)
  func dispatchThreadgroups(_ threadgroupsPerGrid: MTLSize, threadsPerThreadgroup: MTLSize)
  func dispatchThreads(_ threadsPerGrid: MTLSize, threadsPerThreadgroup: MTLSize)
  func updateFence(_ fence: any MTLFence)
  func waitForFence(_ fence: any MTLFence)
  func useResource(_ resource: any MTLResource, usage: MTLResourceUsage)
  func useHeap(_ heap: any MTLHeap)
  func memoryBarrier(scope: MTLBarrierScope)
  func memoryBarrier(resources: [any MTLResource])
}

extension MTLComputeCommandEncoder {
  public func useResources(_ resources: [any MTLResource], usage: MTLResourceUsage) {
    for resource in resources { useResource(resource, usage: usage) }
  }
}
