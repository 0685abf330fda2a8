// The stand-in's compressed files. The layout of Apple's is not public, so this is one of its own: a header of six
// little-endian 64-bit numbers (magic, method, chunk size, uncompressed length, where the table lies, count of
// chunks), the chunks, and a table of count + 1 offsets into the file. A chunk that would not shrink lies there as
// it is, with its uncompressed length.
import CStandIn
import Foundation

enum PackFormat {
  static let magic: UInt64 = 0x0031_4b43_4150_5248
  static let headerBytes = 48
  static let maxChunkBytes = 1 << 30
}

/// What a compressed file says of itself, checked against the file's own length.
struct PackIndex: Sendable {
  let method: MTLIOCompressionMethod
  let chunkBytes: Int
  let byteLength: Int
  /// Chunk i lies at [offsets[i], offsets[i + 1]).
  let offsets: [Int]

  /// Nil where the file is none of this layout, or of another method.
  init?(descriptor: Int32, fileBytes: Int, method: MTLIOCompressionMethod) {
    guard fileBytes >= PackFormat.headerBytes,
      let header = PackIndex.numbers(descriptor, at: 0, count: 6),
      header[0] == PackFormat.magic, header[1] == UInt64(method.rawValue),
      let chunkBytes = Int(exactly: header[2]), (1...PackFormat.maxChunkBytes).contains(chunkBytes),
      let byteLength = Int(exactly: header[3]), let table = Int(exactly: header[4]),
      let count = Int(exactly: header[5]),
      count == byteLength / chunkBytes + (byteLength % chunkBytes == 0 ? 0 : 1),
      table >= PackFormat.headerBytes, table <= fileBytes, count < (fileBytes - table) / 8,
      let entries = PackIndex.numbers(descriptor, at: table, count: count + 1)
    else { return nil }
    let offsets = entries.compactMap { Int(exactly: $0) }
    guard offsets.count == entries.count, offsets[0] == PackFormat.headerBytes, offsets[count] <= table,
      zip(offsets, offsets.dropFirst()).allSatisfy({ $0 <= $1 })
    else { return nil }
    self.method = method
    self.chunkBytes = chunkBytes
    self.byteLength = byteLength
    self.offsets = offsets
  }

  private static func numbers(_ descriptor: Int32, at offset: Int, count: Int) -> [UInt64]? {
    var values = [UInt64](repeating: 0, count: count)
    let whole = values.withUnsafeMutableBytes { bytes in
      guard let base = bytes.baseAddress else { return true }
      return readFully(descriptor, into: base, count: bytes.count, at: offset) == bytes.count
    }
    return whole ? values.map { UInt64(littleEndian: $0) } : nil
  }

  /// The bytes of the file that a range of uncompressed bytes, which is not empty, needs.
  func stored(covering range: Range<Int>) -> Range<Int> {
    offsets[range.lowerBound / chunkBytes]..<offsets[(range.upperBound - 1) / chunkBytes + 1]
  }

  /// Decodes `range` out of its stored bytes. False where they are not what they should be.
  func decode(_ range: Range<Int>, stored: UnsafeRawPointer, into target: UnsafeMutableRawPointer) -> Bool {
    let first = range.lowerBound / chunkBytes
    let partial = UnsafeMutableRawPointer.allocate(byteCount: chunkBytes, alignment: 16)
    defer { partial.deallocate() }
    for chunk in first...(range.upperBound - 1) / chunkBytes {
      let start = chunk * chunkBytes
      let end = min(start + chunkBytes, byteLength)
      let wanted = max(start, range.lowerBound)..<min(end, range.upperBound)
      let whole = wanted.count == end - start
      let place = target + (wanted.lowerBound - range.lowerBound)
      let source = stored + (offsets[chunk] - offsets[first])
      let length = offsets[chunk + 1] - offsets[chunk]
      guard decodeChunk(source, length, into: whole ? place : partial, count: end - start) else { return false }
      if !whole { place.copyMemory(from: partial + (wanted.lowerBound - start), byteCount: wanted.count) }
    }
    return true
  }

  private func decodeChunk(
    _ source: UnsafeRawPointer, _ length: Int, into target: UnsafeMutableRawPointer, count: Int
  ) -> Bool {
    if length == count {
      target.copyMemory(from: source, byteCount: count)
      return true
    }
    return standin_decode(UInt32(method.rawValue), source, length, target, count) == 1
  }
}

/// As many bytes as there are up to the end of the file, or a negative errno.
func readFully(_ descriptor: Int32, into target: UnsafeMutableRawPointer, count: Int, at offset: Int) -> Int {
  var done = 0
  while done < count {
    let got = pread(descriptor, target + done, count - done, off_t(offset + done))
    if got > 0 {
      done += got
    } else if got == 0 {
      break
    } else if errno != EINTR {
      return -Int(errno)
    }
  }
  return done
}
