import CHeadrace
import Foundation

/// What a lane does; `touch` brings pages of a mapping in.
enum MoveOperation: Sendable { case read, write, copy, sync, touch }

/// One request for lanes, all resolved: no reference is counted on the way. Whoever starts a job keeps what its
/// addresses and descriptors belong to until the job has ended.
struct Move: @unchecked Sendable {  // Pointers are not Sendable by themselves; see above.
  let operation: MoveOperation
  /// Its number in the submission, for texts.
  let request: Int
  /// The file; of a copy the one behind the source, -1 where there is none.
  let descriptor: Int32
  let fileOffset: Int
  let target: UnsafeMutableRawPointer?
  let source: UnsafeRawPointer?
  let byteLength: Int
  /// Bytes that the file behind a source or a touch must have for it to be safe; 0 for other moves.
  let mappedLength: Int
  /// Of a touch: reads of the file do not bring its pages in.
  let bypassesCache: Bool
  /// The bytes of the file that the whole request is for, of which this may be a part; for texts.
  private let whole: Range<Int>

  init(
    operation: MoveOperation, request: Int, descriptor: Int32, fileOffset: Int, target: UnsafeMutableRawPointer?,
    source: UnsafeRawPointer?, byteLength: Int, mappedLength: Int = 0, bypassesCache: Bool = false,
    whole: Range<Int>? = nil
  ) {
    self.operation = operation
    self.request = request
    self.descriptor = descriptor
    self.fileOffset = fileOffset
    self.target = target
    self.source = source
    self.byteLength = byteLength
    self.mappedLength = mappedLength
    self.bypassesCache = bypassesCache
    self.whole = whole ?? fileOffset..<fileOffset + byteLength
  }

  /// Pieces of at most `pieceBytes`.
  func pieceCount(_ pieceBytes: Int) -> Int {
    operation == .sync ? 1 : (byteLength + pieceBytes - 1) / pieceBytes
  }

  /// Makes the bytes `[from, from + count)` of it on this thread. HR_SHORT_READ, HR_IO, HR_FILE_CHANGED.
  func run(from: Int, count: Int, syncKind: Int32, isSourceChecked: Bool = false) throws(Failure) {
    switch operation {
    case .read: try read(from, count)
    case .write: try write(from, count)
    case .copy: try copy(from, count, isSourceChecked)
    case .sync: try sync(syncKind)
    case .touch: try touch(from, count)
    }
  }

  private func read(_ from: Int, _ count: Int) throws(Failure) {
    guard let target else { return }
    var done = 0
    while done < count {
      let at = fileOffset + from + done
      let moved = hr_pread(descriptor, target + from + done, count - done, Int64(at))
      if moved > 0 {
        done += Int(moved)
      } else if moved == 0 {
        throw shortRead(at)
      } else if moved != -Int64(EINTR) {
        throw Failure.io("request \(request): reading \(range), at byte \(at)", errno: Int32(-moved))
      }
    }
  }

  private func write(_ from: Int, _ count: Int) throws(Failure) {
    guard let source else { return }
    var done = 0
    while done < count {
      let at = fileOffset + from + done
      let moved = hr_pwrite(descriptor, source + from + done, count - done, Int64(at))
      if moved > 0 {
        done += Int(moved)
      } else if moved == 0 {
        throw Failure(Status.io, "request \(request): writing \(range): the system took 0 bytes at \(at)")
      } else if moved != -Int64(EINTR) {
        throw Failure.io("request \(request): writing \(range), at byte \(at)", errno: Int32(-moved))
      }
    }
  }

  private func copy(_ from: Int, _ count: Int, _ isSourceChecked: Bool) throws(Failure) {
    guard let source, let target else { return }
    if !isSourceChecked { try checkSource() }
    (target + from).copyMemory(from: source + from, byteCount: count)
  }

  private func sync(_ kind: Int32) throws(Failure) {
    while true {
      let result = hr_sync_file(descriptor, kind)
      if result == 0 { return }
      if result != -EINTR {
        throw Failure.io("request \(request): making written data durable", errno: -result)
      }
    }
  }

  /// Memory of a file that has shrunk gives a signal that nobody can catch.
  private func checkSource() throws(Failure) {
    guard mappedLength > 0 else { return }
    var now: Int64 = 0
    let type = hr_file_stat(descriptor, &now)
    if type < 0 { throw Failure.io("request \(request): finding the length", errno: -type) }
    if now < mappedLength {
      throw Failure(
        Status.fileChanged,
        "request \(request): has \(now) bytes now and had \(mappedLength) when it was opened; open it again")
    }
  }

  /// Brings pages in. Reading the file does it too, and where the file has shrunk gives an error instead of a signal.
  private func touch(_ from: Int, _ count: Int) throws(Failure) {
    guard let target else { return }
    if hr_populate(target + from, count) == 0 { return }
    if bypassesCache { return try touchPages(from, count) }
    _ = hr_advise(target + from, count, Int32(HR_MEMORY_WILL_NEED))
    let room = 256 << 10
    let scratch = UnsafeMutableRawPointer.allocate(byteCount: room, alignment: 16)
    defer { scratch.deallocate() }
    var done = 0
    while done < count {
      let at = fileOffset + from + done
      let moved = hr_pread(descriptor, scratch, min(room, count - done), Int64(at))
      if moved == 0 { throw shortRead(at) }
      if moved > 0 { done += Int(moved) }
      if moved < 0, moved != -Int64(EINTR) {
        throw Failure.io("reading bytes from \(at) on into memory", errno: Int32(-moved))
      }
    }
  }

  private func touchPages(_ from: Int, _ count: Int) throws(Failure) {
    guard let target else { return }
    var now: Int64 = 0
    guard hr_file_stat(descriptor, &now) >= 0, now >= mappedLength else { return }
    _ = hr_advise(target + from, count, Int32(HR_MEMORY_WILL_NEED))
    var sum: UInt8 = 0
    for at in stride(from: from, to: from + count, by: hr_page_size()) {
      sum &+= target.load(fromByteOffset: at, as: UInt8.self)
    }
    // So that the loads are made.
    withExtendedLifetime(sum) {}
  }

  /// Pieces run side by side, and the one that met the end need not be the first one past it.
  private func shortRead(_ at: Int) -> Failure {
    var now: Int64 = 0
    let type = hr_file_stat(descriptor, &now)
    let end = type < 0 ? at : min(Int(now), at)
    let there = max(0, end - whole.lowerBound)
    return Failure(
      Status.shortRead,
      "request \(request): \(range) were asked for and the file ended after \(there) of \(whole.count); "
        + "it is truncated or has shrunk")
  }

  private var range: String { "bytes [\(whole.lowerBound), \(whole.upperBound))" }
}
