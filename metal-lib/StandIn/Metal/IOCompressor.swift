// Writes the stand-in's compressed files: see IOPack.swift. Chunks are written as they fill, the header last, so
// that a file that was not flushed is none.
import CStandIn
import Foundation

private final class PackWriter {
  private let descriptor: Int32
  private let method: MTLIOCompressionMethod
  private let chunkBytes: Int
  private let chunk: UnsafeMutableRawPointer
  private let encoded: UnsafeMutableRawPointer
  private var filled = 0
  private var byteLength = 0
  private var offsets = [PackFormat.headerBytes]
  private var failed = false

  init(descriptor: Int32, method: MTLIOCompressionMethod, chunkBytes: Int) {
    self.descriptor = descriptor
    self.method = method
    self.chunkBytes = chunkBytes
    chunk = .allocate(byteCount: chunkBytes, alignment: 16)
    encoded = .allocate(byteCount: chunkBytes, alignment: 16)
  }

  deinit {
    chunk.deallocate()
    encoded.deallocate()
    close(descriptor)
  }

  func append(_ data: UnsafeRawPointer, _ size: Int) {
    var taken = 0
    while taken < size {
      let part = min(size - taken, chunkBytes - filled)
      (chunk + filled).copyMemory(from: data + taken, byteCount: part)
      filled += part
      taken += part
      if filled == chunkBytes { endChunk() }
    }
    byteLength += size
  }

  private func endChunk() {
    // At most one byte less than the chunk, so that the length tells a chunk that lies there as it is.
    let length = standin_encode(UInt32(method.rawValue), chunk, filled, encoded, filled - 1)
    let start = offsets[offsets.count - 1]
    if length > 0 {
      write(encoded, length, at: start)
      offsets.append(start + length)
    } else {
      write(chunk, filled, at: start)
      offsets.append(start + filled)
    }
    filled = 0
  }

  private func write(_ bytes: UnsafeRawPointer, _ count: Int, at offset: Int) {
    var done = 0
    while done < count && !failed {
      let put = pwrite(descriptor, bytes + done, count - done, off_t(offset + done))
      if put > 0 { done += put } else if put == 0 || errno != EINTR { failed = true }
    }
  }

  func flush() -> MTLIOCompressionStatus {
    if filled > 0 { endChunk() }
    let table = offsets[offsets.count - 1]
    write(numbers: offsets.map { UInt64($0) }, at: table)
    let header = [
      PackFormat.magic, UInt64(method.rawValue), UInt64(chunkBytes), UInt64(byteLength), UInt64(table),
      UInt64(offsets.count - 1),
    ]
    write(numbers: header, at: 0)
    return failed ? .error : .complete
  }

  private func write(numbers: [UInt64], at offset: Int) {
    numbers.map(\.littleEndian).withUnsafeBytes { bytes in
      if let base = bytes.baseAddress { write(base, bytes.count, at: offset) }
    }
  }
}

public func MTLIOCompressionContextDefaultChunkSize() -> Int { 65_536 }

/// Nil with errno set where the path cannot be written, nil for a chunk size that no file can have.
public func MTLIOCreateCompressionContext(
  _ path: String, _ type: MTLIOCompressionMethod, _ chunkSize: Int
) -> MTLIOCompressionContext? {
  guard (1...PackFormat.maxChunkBytes).contains(chunkSize) else {
    errno = EINVAL
    return nil
  }
  let descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
  guard descriptor >= 0 else { return nil }
  return Unmanaged.passRetained(PackWriter(descriptor: descriptor, method: type, chunkBytes: chunkSize)).toOpaque()
}

/// Reports nothing: what goes wrong here is told by the flush.
public func MTLIOCompressionContextAppendData(
  _ context: MTLIOCompressionContext, _ data: UnsafeRawPointer, _ size: Int
) {
  Unmanaged<PackWriter>.fromOpaque(context).takeUnretainedValue().append(data, size)
}

public func MTLIOFlushAndDestroyCompressionContext(_ context: MTLIOCompressionContext) -> MTLIOCompressionStatus {
  let writer = Unmanaged<PackWriter>.fromOpaque(context).takeRetainedValue()
  let status = writer.flush()
  return fails(STANDIN_COMPRESS) ? .error : status
}
