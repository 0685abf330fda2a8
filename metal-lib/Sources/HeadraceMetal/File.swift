import CHeadrace
import Foundation

/// A file descriptor, closed with its last user.
final class Descriptor: Sendable {
  let number: Int32
  /// Reads leave the page cache as it is.
  let bypassesCache: Bool

  init(number: Int32, bypassesCache: Bool) {
    self.number = number
    self.bypassesCache = bypassesCache
  }

  deinit { _ = hr_close_descriptor(number) }

  /// Bytes that the file has now. HR_IO, HR_NOT_A_FILE.
  func length() throws(Failure) -> Int {
    var length: Int64 = 0
    let type = hr_file_stat(number, &length)
    if type < 0 { throw Failure.io("finding the length", errno: -type) }
    try checkIsFile(type)
    return Int(length)
  }

  /// HR_FILE_CHANGED where it has fewer than `byteLength` bytes now.
  func checkLength(_ byteLength: Int) throws(Failure) {
    let now = try length()
    if now < byteLength {
      throw Failure(
        Status.fileChanged, "has \(now) bytes now and had \(byteLength) when it was opened; open it again")
    }
  }
}

/// HR_NOT_A_FILE, with what it is. `type` is a HR_TYPE_ of `hr_system.h`.
private func checkIsFile(_ type: Int32) throws(Failure) {
  if type == HR_TYPE_FILE { return }
  let what =
    switch Int(type) {
    case HR_TYPE_DIRECTORY: "a directory"
    case HR_TYPE_PIPE: "a pipe"
    case HR_TYPE_SOCKET: "a socket"
    default: "a device"
    }
  throw Failure(Status.notAFile, "is \(what) and no regular file")
}

/// An open regular file.
final class File: Resource, @unchecked Sendable {  // Nothing changes after init.
  let descriptor: Descriptor
  /// When it was opened; of a compressed file the uncompressed bytes.
  let byteLength: Int
  let isWritable: Bool
  /// Where reads go through an MTLIO queue.
  let stream: StreamFile?
  /// Of a compressed file the length on disk, else nil.
  private let compressedLength: Int?

  /// `codec` is HR_CODEC_NONE or, for a stream, the method of a compressed file of `uncompressedLength` bytes.
  /// HR_IO, HR_NOT_A_FILE, HR_INVALID, HR_UNSUPPORTED.
  init(device: Device, path: String, flags: UInt32, codec: UInt32, uncompressedLength: Int) throws(Failure) {
    let isStream = flags & UInt32(HR_FILE_STREAM) != 0
    isWritable = flags & UInt32(HR_FILE_WRITE) != 0
    try Self.checkFlags(flags, codec, isStream: isStream)
    let bypassesCache = flags & UInt32(HR_FILE_NO_CACHE) != 0
    descriptor = try Self.open(path, isWritable: isWritable, bypassesCache: bypassesCache)
    let length = try descriptor.length()
    let isCompressed = codec != HR_CODEC_NONE
    byteLength = isCompressed ? uncompressedLength : length
    compressedLength = isCompressed ? length : nil
    stream = isStream ? try device.streams.open(path: path, codec: codec, byteLength: byteLength) : nil
    super.init(kind: .file, device: device)
  }

  override class var kind: Kind { .file }

  /// Bytes now. HR_IO; HR_FILE_CHANGED for a compressed file that is shorter than it was.
  func currentLength() throws(Failure) -> Int {
    guard let compressedLength else { return try descriptor.length() }
    try descriptor.checkLength(compressedLength)
    return byteLength
  }

  /// Bytes that a request may lie in: what was written may be read back, so only its end bounds a read of a writable one.
  var requestLimit: Int { isWritable ? (1 << 53) - 1 : byteLength }

  /// Reads on the calling thread; what is there up to the end of the file. HR_IO, HR_UNSUPPORTED for compressed files.
  func read(offset: Int, byteLength: Int, into bytes: UnsafeMutableRawPointer) throws(Failure) -> Int {
    guard compressedLength == nil else {
      throw Failure(Status.unsupported, "a compressed file is read by requests alone")
    }
    var done = 0
    while done < byteLength {
      let count = hr_pread(descriptor.number, bytes + done, byteLength - done, Int64(offset + done))
      if count == 0 { break }
      if count > 0 {
        done += Int(count)
      } else if count != -Int64(EINTR) {
        throw Failure.io("reading bytes [\(offset), \(offset + byteLength))", errno: Int32(-count))
      }
    }
    return done
  }

  /// HR_UNSUPPORTED where the volume cannot.
  func preallocate(_ byteLength: Int) throws(Failure) {
    guard isWritable else { throw Failure(Status.invalid, "was opened for reading") }
    let result = hr_preallocate(descriptor.number, Int64(byteLength))
    if result == 0 { return }
    if result == -ENOTSUP || result == -EOPNOTSUPP || result == -ENOSYS {
      throw Failure(Status.unsupported, "its volume cannot reserve \(byteLength) bytes", osErrno: -result)
    }
    throw Failure.io("reserving \(byteLength) bytes", errno: -result)
  }

  /// HR_DECLINED for a compressed one.
  func checkMappable() throws(Failure) {
    if compressedLength != nil { throw Failure(Status.declined, "a compressed file cannot be mapped") }
  }

  private static func checkFlags(_ flags: UInt32, _ codec: UInt32, isStream: Bool) throws(Failure) {
    let known = UInt32(HR_FILE_WRITE | HR_FILE_NO_CACHE | HR_FILE_STREAM)
    guard flags & ~known == 0 else {
      throw Failure(Status.invalid, "file flags \(flags) have bits outside \(known)")
    }
    if isStream, flags & UInt32(HR_FILE_WRITE) != 0 {
      throw Failure(Status.invalid, "streams only read; file flags are \(flags)")
    }
    guard codec == HR_CODEC_NONE || isStream && codec <= UInt32(HR_CODEC_LZBITMAP) else {
      throw Failure(Status.invalid, "codec \(codec) with file flags \(flags)")
    }
  }

  private static func open(_ path: String, isWritable: Bool, bypassesCache: Bool) throws(Failure) -> Descriptor {
    let what = "opening to \(isWritable ? "write" : "read")"
    // Looked at first, because opening a device or a pipe may already do something.
    let type = hr_path_type(path)
    if type < 0 { throw Failure.io(what, errno: -type) }
    if type != HR_TYPE_MISSING { try checkIsFile(type) }
    let number = hr_open(path, isWritable)
    if number < 0 { throw Failure.io(what, errno: -number) }
    let descriptor = Descriptor(number: number, bypassesCache: bypassesCache)
    if bypassesCache {
      let result = hr_no_cache(number)
      if result < 0 { throw Failure.io("turning its caching off", errno: -result) }
    }
    return descriptor
  }
}
