import CHeadrace
import Foundation
import Metal

/// Writes the file `source` as an MTLIO file `target`, reads that back through an MTLIO queue, and compares all bytes.
///
/// `target` appears whole or not at all: what is written has a name of its own in the same folder until it was
/// compared and is on the disk. `ended` has the source's length as its bytes. HR_INVALID for an empty source;
/// HR_NOT_A_FILE, HR_IO, HR_SHORT_READ or HR_FILE_CHANGED where the source changes meanwhile; HR_IO where the disk is
/// full, which shows only when the file is closed; HR_CORRUPT where the bytes read back differ; HR_CANCELLED.
func startCompression(
  device: Device, source: String, target: String, codec: UInt32, chunkBytes: Int, ended: @escaping Ended
) -> any RunningWork {
  let work = Compression(device: device, source: source, target: target, codec: codec, chunkBytes: chunkBytes)
  DispatchQueue(label: "headrace.compress", qos: .userInitiated).async {
    let end = work.run()
    ended(end)
  }
  return work
}

/// One run of ``startCompression(device:source:target:codec:chunkBytes:ended:)``, on a thread of its own.
final class Compression: RunningWork, @unchecked Sendable {  // Constant, but for what is behind locks.
  /// Bounds of the bytes that a codec takes at a time.
  static let chunkBounds = 4096...(16 << 20)
  private static let pieceBytes = 4 << 20

  private let device: Device
  private let sourcePath: String
  private let targetPath: String
  private let codec: UInt32
  private let chunkBytes: Int
  private let isStopped = Locked(false)
  private let bytesHandled = Locked(0)

  init(device: Device, source: String, target: String, codec: UInt32, chunkBytes: Int) {
    self.device = device
    sourcePath = source
    targetPath = target
    self.codec = codec
    self.chunkBytes = chunkBytes
  }

  func stop() { isStopped.withLock { $0 = true } }

  /// Each byte is handled twice: written, and compared.
  var progress: Int { bytesHandled.withLock { $0 } / 2 }

  /// The method and chunk size of these numbers, 0 being the default size. HR_INVALID.
  static func check(codec: UInt32, chunkBytes: UInt64) throws(Failure) -> (MTLIOCompressionMethod, Int) {
    guard let method = try StreamFile.method(codec) else {
      throw Failure(Status.invalid, "compressing needs a codec, 0 to 4")
    }
    if chunkBytes == 0 { return (method, MTLIOCompressionContextDefaultChunkSize()) }
    guard let chunk = Int(exactly: chunkBytes), chunkBounds.contains(chunk) else {
      throw Failure(
        Status.invalid,
        "chunk_bytes is \(chunkBytes), and must be in \(chunkBounds.lowerBound) to \(chunkBounds.upperBound)")
    }
    return (method, chunk)
  }

  fileprivate func run() -> RunEnd {
    var end = RunEnd()
    end.times.started = clockMs()
    let partial = Self.partialPath(of: targetPath)
    do throws(Failure) {
      let (method, chunk) = try Self.check(codec: codec, chunkBytes: UInt64(max(chunkBytes, 0)))
      let source = try CompressionSource(path: sourcePath)
      do throws(Failure) {
        try write(source, to: partial, method, chunk)
        end.times.encoded = clockMs()
        try compare(source, with: partial, method)
        try source.checkLength()
        try publish(partial)
      } catch {
        unlink(partial)
        throw error
      }
      end.bytesDone = source.byteLength
    } catch {
      end.failure = error
    }
    return end
  }

  /// A name in the same folder that nobody else uses.
  private static func partialPath(of path: String) -> String {
    let url = URL(fileURLWithPath: path)
    let name = ".\(url.lastPathComponent.prefix(150)).\(UUID().uuidString).partial"
    return url.deletingLastPathComponent().appendingPathComponent(name).path
  }

  private func checkStopped() throws(Failure) {
    if isStopped.withLock({ $0 }) { throw Failure(Status.cancelled, "compressing \(sourcePath) was cancelled") }
  }

  private func write(
    _ source: CompressionSource, to partial: String, _ method: MTLIOCompressionMethod, _ chunk: Int
  ) throws(Failure) {
    // It promises errno for a bad path alone, so an older one must not be taken for its own.
    errno = 0
    guard let context = MTLIOCreateCompressionContext(partial, method, chunk) else {
      let code = errno
      if code == 0 { throw Failure(Status.unsupported, "this system cannot write codec \(method.rawValue)") }
      throw Failure.io("creating \(partial)", errno: code)
    }
    var failure: Failure?
    do throws(Failure) {
      try source.forEachPiece(of: Self.pieceBytes) { (bytes, _) throws(Failure) in
        try checkStopped()
        // An empty piece never comes.
        if let base = bytes.baseAddress { MTLIOCompressionContextAppendData(context, base, bytes.count) }
        bytesHandled.withLock { $0 += bytes.count }
      }
    } catch {
      failure = error
    }
    // Also after a failure, because nothing else frees the context.
    errno = 0
    let status = MTLIOFlushAndDestroyCompressionContext(context)
    let code = errno
    if let failure { throw failure }
    if status != .complete {
      throw Failure(
        Status.io, "writing \(source.byteLength) bytes compressed to \(partial) failed: is the disk full?",
        osErrno: code == ENOSPC || code == EDQUOT || code == EIO ? code : 0)
    }
  }

  private func compare(
    _ source: CompressionSource, with partial: String, _ method: MTLIOCompressionMethod
  ) throws(Failure) {
    let reader = try CompressedReader(device: device, path: partial, method, pieceBytes: Self.pieceBytes)
    try source.forEachPiece(of: Self.pieceBytes) { (bytes, offset) throws(Failure) in
      try checkStopped()
      let range = "[\(offset), \(offset + bytes.count))"
      let read = try reader.read(offset: offset, byteLength: bytes.count, range)
      guard let base = bytes.baseAddress, memcmp(base, read, bytes.count) == 0 else {
        throw Failure(Status.corrupt, "bytes \(range) came back changed from \(partial)")
      }
      bytesHandled.withLock { $0 += bytes.count }
    }
  }

  private func publish(_ partial: String) throws(Failure) {
    let number = hr_open(partial, true)
    if number < 0 { throw Failure.io("opening \(partial)", errno: -number) }
    let synced = hr_sync_file(number, Int32(HR_SYNC_PLAIN))
    _ = hr_close_descriptor(number)
    if synced < 0 { throw Failure.io("writing \(partial) out", errno: -synced) }
    try checkStopped()
    if rename(partial, targetPath) != 0 { throw Failure.io("renaming \(partial) to \(targetPath)", errno: errno) }
  }
}

/// The file that is compressed, read in order.
private final class CompressionSource {
  let byteLength: Int
  private let path: String
  private let descriptor: Descriptor

  init(path: String) throws(Failure) {
    self.path = path
    let number = hr_open(path, false)
    if number < 0 { throw Failure.io("opening \(path)", errno: -number) }
    descriptor = Descriptor(number: number, bypassesCache: false)
    do throws(Failure) { byteLength = try descriptor.length() } catch {
      throw Failure(error.status, "\(path): \(error.message)", osErrno: error.osErrno)
    }
    if byteLength == 0 { throw Failure(Status.invalid, "\(path) has 0 bytes: there is nothing to compress") }
  }

  /// HR_FILE_CHANGED where the length is not what it was.
  func checkLength() throws(Failure) {
    let now = try descriptor.length()
    if now != byteLength {
      throw Failure(Status.fileChanged, "\(path) has \(now) bytes now and had \(byteLength) when it was opened")
    }
  }

  /// Calls `body` with the bytes of each piece, and its offset.
  func forEachPiece(
    of pieceBytes: Int, _ body: (UnsafeRawBufferPointer, Int) throws(Failure) -> Void
  ) throws(Failure) {
    let room = UnsafeMutableRawBufferPointer.allocate(byteCount: pieceBytes, alignment: 16384)
    defer { room.deallocate() }
    var offset = 0
    while offset < byteLength {
      let count = min(pieceBytes, byteLength - offset)
      try fill(room, count, at: offset)
      try body(UnsafeRawBufferPointer(rebasing: room[..<count]), offset)
      offset += count
    }
  }

  private func fill(_ room: UnsafeMutableRawBufferPointer, _ count: Int, at offset: Int) throws(Failure) {
    guard let base = room.baseAddress else { return }
    var done = 0
    while done < count {
      let got = hr_pread(descriptor.number, base + done, count - done, Int64(offset + done))
      if got > 0 {
        done += Int(got)
      } else if got == 0 {
        throw Failure(
          Status.shortRead,
          "\(path): bytes [\(offset), \(offset + count)) were asked for and the file ended after \(done) of \(count); "
            + "it is truncated or has shrunk")
      } else if got != -Int64(EINTR) {
        throw Failure.io("reading bytes [\(offset), \(offset + count)) of \(path)", errno: Int32(-got))
      }
    }
  }
}

/// Reads a compressed file back, by loads into memory of its own.
private final class CompressedReader {
  private let queue: any MTLIOCommandQueue
  private let handle: any MTLIOFileHandle
  private let scratch: ScratchAllocator
  private let room: UnsafeMutableRawPointer

  init(device: Device, path: String, _ method: MTLIOCompressionMethod, pieceBytes: Int) throws(Failure) {
    scratch = device.streams.scratch
    let descriptor = MTLIOCommandQueueDescriptor()
    descriptor.maxCommandBufferCount = 1
    descriptor.type = .serial
    descriptor.priority = .high
    descriptor.scratchBufferAllocator = scratch
    do {
      queue = try device.metal.makeIOCommandQueue(descriptor: descriptor)
    } catch {
      throw Failure.metal("making an MTLIO queue", error)
    }
    do {
      handle = try device.metal.makeIOFileHandle(url: URL(fileURLWithPath: path), compressionMethod: method)
    } catch {
      throw Failure.metal("opening \(path) to compare it", error, status: Status.corrupt)
    }
    room = .allocate(byteCount: pieceBytes, alignment: 16384)
  }

  deinit { room.deallocate() }

  /// The bytes are good until the next call.
  func read(offset: Int, byteLength: Int, _ range: String) throws(Failure) -> UnsafeRawPointer {
    let (status, error): (MTLIOStatus, (any Error)?) = autoreleasepool {
      let commandBuffer = queue.makeCommandBuffer()
      commandBuffer.loadBytes(room, size: byteLength, sourceHandle: handle, sourceHandleOffset: offset)
      commandBuffer.commit()
      commandBuffer.waitUntilCompleted()
      return (commandBuffer.status, commandBuffer.error)
    }
    if status == .complete { return UnsafeRawPointer(room) }
    if status == .cancelled {
      throw scratch.takeRefusal()
        ?? Failure(Status.io, "comparing bytes \(range): MTLIO cancelled it, as it does without scratch memory")
    }
    guard let error else {
      throw Failure(Status.corrupt, "comparing bytes \(range): MTLIO ended with status \(status.rawValue)")
    }
    throw Failure.metal("comparing bytes \(range)", error, status: Status.corrupt)
  }
}
