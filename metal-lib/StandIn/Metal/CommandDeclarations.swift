// Command queues, command buffers and their encoders, events and errors of the Metal API.
import Dispatch
import Foundation

/// Seconds. Apple's Foundation brings the name, that of Linux does not.
public typealias CFTimeInterval = Double

public typealias MTLCommandBufferHandler = @Sendable (any MTLCommandBuffer) -> Void
public typealias MTLSharedEventNotificationBlock = @Sendable (any MTLSharedEvent, UInt64) -> Void

public protocol MTLEvent: NSObjectProtocol {
  var device: (any MTLDevice)? { get }
  var label: String? { get set }
}

public protocol MTLSharedEvent: MTLEvent {
  var signaledValue: UInt64 { get set }
  func notify(_ listener: MTLSharedEventListener, atValue value: UInt64, block: @escaping MTLSharedEventNotificationBlock)
}

open class MTLSharedEventListener: NSObject {
  public let dispatchQueue: DispatchQueue

  public override init() {
    dispatchQueue = DispatchQueue(label: "headrace.stand-in.listener")
    super.init()
  }

  public init(dispatchQueue: DispatchQueue) {
    self.dispatchQueue = dispatchQueue
    super.init()
  }
}

public enum MTLCommandBufferStatus: UInt, Sendable {
  case notEnqueued = 0
  case enqueued = 1
  case committed = 2
  case scheduled = 3
  case completed = 4
  case error = 5
}

public let MTLCommandBufferErrorDomain = "MTLCommandBufferErrorDomain"

public struct MTLCommandBufferError: Error, CustomNSError, Equatable, Sendable {
  public enum Code: UInt, Sendable {
    case none = 0
    case `internal` = 1
    case timeout = 2
    case pageFault = 3
    case accessRevoked = 4
    case notPermitted = 7
    case outOfMemory = 8
    case invalidResource = 9
    case memoryless = 10
    case deviceRemoved = 11
    case stackOverflow = 12
  }

  public let code: Code

  public init(_ code: Code) {
    self.code = code
  }

  public static var errorDomain: String { MTLCommandBufferErrorDomain }
  public var errorCode: Int { Int(code.rawValue) }

  public static var none: Code { .none }
  public static var `internal`: Code { .internal }
  public static var timeout: Code { .timeout }
  public static var pageFault: Code { .pageFault }
  public static var accessRevoked: Code { .accessRevoked }
  public static var notPermitted: Code { .notPermitted }
  public static var outOfMemory: Code { .outOfMemory }
  public static var invalidResource: Code { .invalidResource }
  public static var memoryless: Code { .memoryless }
  public static var deviceRemoved: Code { .deviceRemoved }
  public static var stackOverflow: Code { .stackOverflow }
}

public struct MTLCommandBufferErrorOption: OptionSet, Sendable {
  public let rawValue: UInt

  public init(rawValue: UInt) {
    self.rawValue = rawValue
  }

  public static let encoderExecutionStatus = MTLCommandBufferErrorOption(rawValue: 1)
}

open class MTLCommandBufferDescriptor: NSObject, NSCopying {
  open var retainedReferences = true
  open var errorOptions: MTLCommandBufferErrorOption = []

  open func copy(with zone: NSZone? = nil) -> Any {
    let copy = MTLCommandBufferDescriptor()
    copy.retainedReferences = retainedReferences
    copy.errorOptions = errorOptions
    return copy
  }
}

public protocol MTLCommandQueue: NSObjectProtocol {
  var label: String? { get set }
  var device: any MTLDevice { get }
  func makeCommandBuffer() -> (any MTLCommandBuffer)?
  func makeCommandBuffer(descriptor: MTLCommandBufferDescriptor) -> (any MTLCommandBuffer)?
  func makeCommandBufferWithUnretainedReferences() -> (any MTLCommandBuffer)?
  func addResidencySet(_ residencySet: any MTLResidencySet)
  func addResidencySets(_ residencySets: [any MTLResidencySet])
  func removeResidencySet(_ residencySet: any MTLResidencySet)
  func removeResidencySets(_ residencySets: [any MTLResidencySet])
}

public protocol MTLCommandBuffer: NSObjectProtocol {
  var device: any MTLDevice { get }
  var commandQueue: any MTLCommandQueue { get }
  var retainedReferences: Bool { get }
  var errorOptions: MTLCommandBufferErrorOption { get }
  var label: String? { get set }
  var kernelStartTime: CFTimeInterval { get }
  var kernelEndTime: CFTimeInterval { get }
  var gpuStartTime: CFTimeInterval { get }
  var gpuEndTime: CFTimeInterval { get }
  var status: MTLCommandBufferStatus { get }
  var error: (any Error)? { get }
  func enqueue()
  func commit()
  func addScheduledHandler(_ block: @escaping MTLCommandBufferHandler)
  func addCompletedHandler(_ block: @escaping MTLCommandBufferHandler)
  func waitUntilScheduled()
  func waitUntilCompleted()
  func makeBlitCommandEncoder() -> (any MTLBlitCommandEncoder)?
  func makeComputeCommandEncoder() -> (any MTLComputeCommandEncoder)?
  func makeComputeCommandEncoder(dispatchType: MTLDispatchType) -> (any MTLComputeCommandEncoder)?
  func encodeWaitForEvent(_ event: any MTLEvent, value: UInt64)
  func encodeSignalEvent(_ event: any MTLEvent, value: UInt64)
  func useResidencySet(_ residencySet: any MTLResidencySet)
  func useResidencySets(_ residencySets: [any MTLResidencySet])
  func pushDebugGroup(_ string: String)
  func popDebugGroup()
}

public protocol MTLCommandEncoder: NSObjectProtocol {
  var device: any MTLDevice { get }
  var label: String? { get set }
  func endEncoding()
  func insertDebugSignpost(_ string: String)
  func pushDebugGroup(_ string: String)
  func popDebugGroup()
}

/// On macOS, Apple documents that offsets and sizes of copies and fills must be multiples of 4 bytes.
public protocol MTLBlitCommandEncoder: MTLCommandEncoder {
  func copy(from sourceBuffer: any MTLBuffer, sourceOffset: Int, to destinationBuffer: any MTLBuffer, destinationOffset: Int, size: Int)
  func fill(buffer: any MTLBuffer, range: Range<Int>, value: UInt8)
  func updateFence(_ fence: any MTLFence)
  func waitForFence(_ fence: any MTLFence)
}
