// A load, and how its bytes are moved.
import CStandIn
import Foundation

/// What a command refers to: kept, or only watched where the buffer was made with unretained references.
struct IOReference<Object: NSObject>: @unchecked Sendable {
  private let kept: Object?
  private weak var watched: Object?

  init(_ object: Object, kept: Bool) {
    self.kept = kept ? object : nil
    watched = object
  }

  var object: Object {
    guard let object = kept ?? watched else { trap("MTLIO: a command uses an object that was freed") }
    return object
  }
}

struct IOLoad: @unchecked Sendable {
  enum Target {
    case buffer(IOReference<StandInBuffer>, offset: Int)
    case bytes(UnsafeMutableRawPointer)
  }
  let target: Target
  let size: Int
  let handle: IOReference<StandInIOFileHandle>
  let handleOffset: Int
}

enum IOLoadOutcome {
  case done
  case skipped
  case failed(NSError)
}

/// The one disk that all loads share, as slow as the configuration says.
private let disk = Guarded(0.0)

extension IOLoad {
  private static let pieceBytes = 1 << 20

  private func place() -> (bytes: UnsafeMutableRawPointer, isPrivate: Bool)? {
    switch target {
    case .bytes(let pointer):
      return (pointer, false)
    case .buffer(let reference, let offset):
      let buffer = reference.object
      guard let base = UnsafeMutableRawPointer(bitPattern: UInt(buffer.gpuAddress)) else { return nil }
      return (base + offset, buffer.storageMode == .private)
    }
  }

  /// `stops` is asked between pieces.
  func run(engine: IOEngine, stops: () -> Bool) -> IOLoadOutcome {
    guard let place = place() else { return .failed(ioError(EFAULT, "The buffer has no memory")) }
    let handle = handle.object
    guard place.isPrivate else { return fill(place.bytes, handle, engine, stops) }
    // Private memory is out of the CPU's reach: the bytes come by scratch memory and a copy of the GPU's.
    guard let scratch = takeScratch(size, engine) else { return .skipped }
    let outcome = fill(scratch.buffer.contents(), handle, engine, stops)
    if case .done = outcome { place.bytes.copyMemory(from: scratch.buffer.contents(), byteCount: size) }
    return outcome
  }

  private func fill(
    _ target: UnsafeMutableRawPointer, _ handle: StandInIOFileHandle, _ engine: IOEngine, _ stops: () -> Bool
  ) -> IOLoadOutcome {
    guard let pack = handle.pack else {
      return read(handle, handleOffset..<handleOffset + size, into: target, engine, stops)
    }
    guard handleOffset <= pack.byteLength, size <= pack.byteLength - handleOffset else {
      return .failed(ioError(EINVAL, "A load past the end of the compressed file"))
    }
    let range = handleOffset..<handleOffset + size
    let stored = pack.stored(covering: range)
    guard let scratch = takeScratch(max(stored.count, 1), engine) else { return .skipped }
    let outcome = read(handle, stored, into: scratch.buffer.contents(), engine, stops)
    guard case .done = outcome else { return outcome }
    engine.decompression.lock()
    defer { engine.decompression.unlock() }
    if pack.decode(range, stored: scratch.buffer.contents(), into: target) { return .done }
    return .failed(ioError(EILSEQ, "Decompression failed"))
  }

  private func read(
    _ handle: StandInIOFileHandle, _ range: Range<Int>, into target: UnsafeMutableRawPointer, _ engine: IOEngine,
    _ stops: () -> Bool
  ) -> IOLoadOutcome {
    var done = 0
    while done < range.count {
      if stops() { return .skipped }
      let part = min(Self.pieceBytes, range.count - done)
      waitForDisk(part, engine.bytesPerSecond)
      let got = readFully(handle.descriptor, into: target + done, count: part, at: range.lowerBound + done)
      if got < 0 { return .failed(ioError(Int32(-got), "Reading failed")) }
      if got < part { return .failed(ioError(EINVAL, "A load past the end of the file")) }
      done += part
    }
    return .done
  }

  /// Nil where the queue's own allocator gives none: the load is then left out.
  private func takeScratch(_ minimumSize: Int, _ engine: IOEngine) -> (any MTLIOScratchBuffer)? {
    let fault = meet(STANDIN_IO_SCRATCH)
    guard let allocator = engine.scratchAllocator else {
      return engine.device.makeBuffer(length: minimumSize, options: .storageModeShared).map(OwnScratch.init)
    }
    guard let scratch = allocator.makeScratchBuffer(minimumSize: minimumSize), fault.code == 0 else { return nil }
    if scratch.buffer.length < minimumSize {
      trap("MTLIO: a scratch buffer of \(scratch.buffer.length) bytes, and \(minimumSize) were asked for")
    }
    if scratch.buffer.storageMode == .private { trap("MTLIO: a scratch buffer that the CPU cannot see") }
    return scratch
  }
}

/// Scratch memory of a queue without an allocator.
private final class OwnScratch: NSObject, MTLIOScratchBuffer {
  let buffer: any MTLBuffer
  init(buffer: any MTLBuffer) { self.buffer = buffer }
}

/// Sleeps for as long as the disk is busy with these bytes and with all that came before them.
private func waitForDisk(_ byteLength: Int, _ bytesPerSecond: Int) {
  if bytesPerSecond == 0 { return }
  let now = hostSeconds()
  let until = disk.withLock { busyUntil in
    busyUntil = max(busyUntil, now) + Double(byteLength) / Double(bytesPerSecond)
    return busyUntil
  }
  Thread.sleep(forTimeInterval: until - now)
}
