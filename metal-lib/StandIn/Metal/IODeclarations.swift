// MTLIO as Swift imports it from Apple's framework: names, labels, raw values and optionality are Apple's.
// Loads into textures are left out, because the library has none.
import Foundation

/// How much of the disk's and the CPU's time a queue's loads get.
public enum MTLIOPriority: Int, Sendable {
  case high = 0
  case normal = 1
  case low = 2
}

/// Whether a queue's command buffers may overlap one another.
public enum MTLIOCommandQueueType: Int, Sendable {
  case concurrent = 0
  case serial = 1
}

public enum MTLIOStatus: Int, Sendable {
  case pending = 0
  case cancelled = 1
  case error = 2
  case complete = 3
}

public enum MTLIOCompressionMethod: Int, Sendable {
  case zlib = 0
  case lzfse = 1
  case lz4 = 2
  case lzma = 3
  case lzBitmap = 4
}

public enum MTLIOCompressionStatus: Int, Sendable {
  case complete = 0
  case error = 1
}

public let MTLIOErrorDomain = "MTLIOError"

public struct MTLIOError: Error, CustomNSError {
  public enum Code: Int, Sendable {
    case urlInvalid = 1
    case `internal` = 2
  }
  public static var errorDomain: String { MTLIOErrorDomain }
  public let code: Code
  public var errorCode: Int { code.rawValue }
  public init(_ code: Code) { self.code = code }
}

/// Called on a thread of Metal's own.
public typealias MTLIOCommandBufferHandler = @Sendable (any MTLIOCommandBuffer) -> Void

public protocol MTLIOCommandQueue: NSObjectProtocol {
  func makeCommandBuffer() -> any MTLIOCommandBuffer
  func makeCommandBufferWithUnretainedReferences() -> any MTLIOCommandBuffer
  func enqueueBarrier()
  var label: String? { get set }
}

public protocol MTLIOCommandBuffer: NSObjectProtocol {
  func load(
    _ buffer: any MTLBuffer, offset: Int, size: Int, sourceHandle: any MTLIOFileHandle, sourceHandleOffset: Int)
  func loadBytes(
    _ pointer: UnsafeMutableRawPointer, size: Int, sourceHandle: any MTLIOFileHandle, sourceHandleOffset: Int)
  func copyStatus(buffer: any MTLBuffer, offset: Int)
  func addBarrier()
  func enqueue()
  func commit()
  func waitUntilCompleted()
  func tryCancel()
  func waitForEvent(_ event: any MTLSharedEvent, value: UInt64)
  func signalEvent(_ event: any MTLSharedEvent, value: UInt64)
  func addCompletedHandler(_ block: @escaping MTLIOCommandBufferHandler)
  func pushDebugGroup(_ string: String)
  func popDebugGroup()
  var label: String? { get set }
  var status: MTLIOStatus { get }
  var error: (any Error)? { get }
}

/// Opaque: it tells no size, and closes with its last reference.
public protocol MTLIOFileHandle: NSObjectProtocol {
  var label: String? { get set }
}

public protocol MTLIOScratchBuffer: NSObjectProtocol {
  var buffer: any MTLBuffer { get }
}

public protocol MTLIOScratchBufferAllocator: NSObjectProtocol {
  func makeScratchBuffer(minimumSize: Int) -> (any MTLIOScratchBuffer)?
}

open class MTLIOCommandQueueDescriptor: NSObject, NSCopying {
  public var maxCommandBufferCount = 64
  public var priority = MTLIOPriority.normal
  public var type = MTLIOCommandQueueType.concurrent
  public var maxCommandsInFlight = 4
  public var scratchBufferAllocator: (any MTLIOScratchBufferAllocator)?

  public override init() { super.init() }

  open override func copy() -> Any { copy(with: nil) }

  /// Leaves `maxCommandsInFlight` at its default, as the real one was seen to do.
  open func copy(with zone: NSZone? = nil) -> Any {
    let other = MTLIOCommandQueueDescriptor()
    other.maxCommandBufferCount = maxCommandBufferCount
    other.priority = priority
    other.type = type
    other.scratchBufferAllocator = scratchBufferAllocator
    return other
  }
}

/// A file being written; owned by the caller until it is flushed.
public typealias MTLIOCompressionContext = UnsafeMutableRawPointer
