// Files as sources of loads, and the device's factories of MTLIO.
import CStandIn
import Foundation

/// An error as MTLIO was seen to give it: the domain's name, and errno as the code.
func ioError(_ code: Int32, _ what: String) -> NSError {
  NSError(
    domain: MTLIOErrorDomain, code: Int(code),
    userInfo: [NSLocalizedDescriptionKey: "\(what): \(String(cString: strerror(code)))"])
}

final class StandInIOFileHandle: NSObject, MTLIOFileHandle, @unchecked Sendable {
  let device: StandInDevice
  let descriptor: Int32
  /// Nil for a raw file.
  let pack: PackIndex?
  private let labelText = Guarded<String?>(nil)
  var label: String? {
    get { labelText.withLock { $0 } }
    set { labelText.withLock { $0 = newValue } }
  }

  init(device: StandInDevice, url: URL, method: MTLIOCompressionMethod?) throws {
    let fault = meet(STANDIN_IO_HANDLE)
    if fault.code != 0 { throw ioError(fault.code, "Failed to open the file") }
    let opened = open(url.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard opened >= 0 else { throw ioError(errno, "Failed to open the file") }
    var about = stat()
    guard fstat(opened, &about) == 0, about.st_mode & S_IFMT == S_IFREG else {
      close(opened)
      throw ioError(EINVAL, "Failed to open the file, which is not a regular one")
    }
    if let method {
      pack = PackIndex(descriptor: opened, fileBytes: Int(about.st_size), method: method)
      if pack == nil {
        close(opened)
        let text = "Failed to create compression context because file was not compressed with MTLIOCompressionContext"
        throw NSError(
          domain: MTLIOErrorDomain, code: MTLIOError.Code.internal.rawValue,
          userInfo: [NSLocalizedDescriptionKey: text])
      }
    } else {
      pack = nil
    }
    self.device = device
    descriptor = opened
    super.init()
    standin_count(UInt32(STANDIN_LIVE_IO_HANDLES), 1)
  }

  deinit {
    close(descriptor)
    standin_count(UInt32(STANDIN_LIVE_IO_HANDLES), -1)
  }
}

extension StandInDevice {
  public func makeIOCommandQueue(descriptor: MTLIOCommandQueueDescriptor) throws -> any MTLIOCommandQueue {
    guard descriptor.maxCommandBufferCount > 0 else { trap("MTLIO: maxCommandBufferCount is 0") }
    guard descriptor.maxCommandsInFlight >= 0 else {
      trap("MTLIO: maxCommandsInFlight is \(descriptor.maxCommandsInFlight)")
    }
    return StandInIOCommandQueue(device: self, descriptor: descriptor)
  }

  public func makeIOFileHandle(url: URL) throws -> any MTLIOFileHandle {
    try StandInIOFileHandle(device: self, url: url, method: nil)
  }

  public func makeIOFileHandle(url: URL, compressionMethod: MTLIOCompressionMethod) throws -> any MTLIOFileHandle {
    try StandInIOFileHandle(device: self, url: url, method: compressionMethod)
  }
}
