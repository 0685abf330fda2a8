import CHeadrace
import Foundation
import Metal

/// A file that MTLIO reads, raw or compressed. Closed with its last reference.
final class StreamFile: @unchecked Sendable {  // Everything in it is constant; the handle is opaque.
  /// Nil for a raw file.
  let codec: MTLIOCompressionMethod?
  /// Bytes that loads may ask for: of a compressed file, those of its content.
  let byteLength: Int
  let handle: any MTLIOFileHandle
  /// Of the same file, to ask for its length: an MTLIO handle does not tell it.
  private let descriptor: Int32
  /// Bytes of the file itself when it was opened.
  private let storedLength: Int

  /// `codec` is HR_CODEC_NONE, and `byteLength` is then not used, or the method of a compressed file, whose content has
  /// `byteLength` bytes. HR_NOT_A_FILE, HR_IO; HR_INVALID for an unknown codec; HR_CORRUPT where a compressed file is
  /// none of that method.
  init(metal: any MTLDevice, path: String, codec: UInt32, byteLength: Int) throws(Failure) {
    let method = try Self.method(codec)
    let descriptor = hr_open(path, false)
    if descriptor < 0 { throw Failure.io("opening to read", errno: -descriptor) }
    do throws(Failure) {
      storedLength = try Self.length(descriptor)
      handle = try Self.open(metal, path, method)
    } catch {
      _ = hr_close_descriptor(descriptor)
      throw error
    }
    self.descriptor = descriptor
    self.codec = method
    self.byteLength = method == nil ? storedLength : byteLength
  }

  deinit { _ = hr_close_descriptor(descriptor) }

  /// HR_INVALID for a number that is no method; nil for HR_CODEC_NONE.
  static func method(_ codec: UInt32) throws(Failure) -> MTLIOCompressionMethod? {
    if codec == HR_CODEC_NONE { return nil }
    // On a Mac `init(rawValue:)` of an enum that comes from C takes any number.
    guard codec <= HR_CODEC_LZBITMAP, let method = MTLIOCompressionMethod(rawValue: Int(codec)) else {
      throw Failure(Status.invalid, "codec \(codec) is not one of 0 to 4")
    }
    return method
  }

  private static func length(_ descriptor: Int32) throws(Failure) -> Int {
    var length: Int64 = 0
    let type = hr_file_stat(descriptor, &length)
    if type < 0 { throw Failure.io("finding the length", errno: -type) }
    guard type == Int32(HR_TYPE_FILE) else { throw Failure(Status.notAFile, "is no regular file") }
    return Int(length)
  }

  private static func open(
    _ metal: any MTLDevice, _ path: String, _ method: MTLIOCompressionMethod?
  ) throws(Failure) -> any MTLIOFileHandle {
    let url = URL(fileURLWithPath: path)
    guard let method else {
      do { return try metal.makeIOFileHandle(url: url) } catch {
        throw Failure.metal("opening with MTLIO", error, status: Status.io)
      }
    }
    // The file is there and can be read, so what is wrong is its content.
    do { return try metal.makeIOFileHandle(url: url, compressionMethod: method) } catch {
      throw Failure.metal("opening as a compressed file of codec \(method.rawValue)", error, status: Status.corrupt)
    }
  }

  /// Bytes of the file itself now.
  func storedLengthNow() throws(Failure) -> Int { try Self.length(descriptor) }

  /// Whether the file, which has `stored` bytes now, still holds bytes [offset, offset + byteLength). HR_SHORT_READ,
  /// HR_FILE_CHANGED for a compressed one, HR_OUT_OF_RANGE past the content's end.
  func check(offset: Int, byteLength wanted: Int, stored: Int) throws(Failure) {
    guard offset >= 0, wanted >= 0 else {
      throw Failure(Status.outOfRange, "bytes [\(offset), \(offset) + \(wanted)) are no range of a file")
    }
    if codec == nil {
      let there = min(max(stored - offset, 0), wanted)
      if there == wanted { return }
      throw Failure(
        Status.shortRead,
        "bytes [\(offset), \(offset + wanted)) were asked for and the file ended after \(there) of \(wanted); "
          + "it is truncated or has shrunk")
    }
    guard offset <= byteLength, wanted <= byteLength - offset else {
      throw Failure(
        Status.outOfRange, "bytes [\(offset), \(offset) + \(wanted)) do not lie in the file's \(byteLength) bytes")
    }
    if stored < storedLength {
      throw Failure(
        Status.fileChanged,
        "the compressed file has \(stored) bytes now and had \(storedLength) when it was opened; make it again")
    }
  }
}
