import CHeadrace
import Metal

/// Bounds the bytes of windows that are mapped at the same time: a driver wires a whole window at its first use.
final class MappingBudget: Sendable {
  let bytes: Int
  private let mapped = Locked(0)

  init(bytes: Int) { self.bytes = bytes }

  /// HR_DECLINED where `byteLength` more are too many; else taken until ``giveBack(_:)``.
  func take(_ byteLength: Int) throws(Failure) {
    try mapped.withLock { (mapped) throws(Failure) in
      guard byteLength <= bytes - mapped else {
        throw Failure(
          Status.declined,
          "mapping \(byteLength) bytes more than the \(mapped) that are mapped would pass the budget of \(bytes)")
      }
      mapped += byteLength
    }
  }

  func giveBack(_ byteLength: Int) { mapped.withLock { $0 -= byteLength } }

  var bytesMapped: Int { mapped.withLock { $0 } }
}

/// The pages of a file behind a buffer, and what keeps it safe to touch them.
final class Mapping: @unchecked Sendable {  // Addresses never change; pages are read-only.
  let descriptor: Descriptor
  /// Bytes that the file must still have.
  let fileLength: Int
  /// Where the first page lies in the file.
  let fileOffset: Int
  let pages: UnsafeMutableRawPointer
  /// From the first page to the last byte of the range: what lies in the file for sure.
  let usedLength: Int
  private let lanes: Lanes
  private let prefetches = Locked(Prefetches())

  private struct Prefetches {
    var number = 0
    var running: [Int: any RunningWork] = [:]
    var isStopped = false
  }

  /// Bytes that one hint brings in at most: more would push out what was read before.
  private static let maxPrefetch = 1 << 30

  init(
    descriptor: Descriptor, fileLength: Int, window: Window, pages: UnsafeMutableRawPointer, usedLength: Int,
    lanes: Lanes
  ) {
    self.descriptor = descriptor
    self.fileLength = fileLength
    fileOffset = window.start
    self.pages = pages
    self.usedLength = usedLength
    self.lanes = lanes
  }

  /// HR_FILE_CHANGED, HR_IO.
  func checkFile() throws(Failure) { try descriptor.checkLength(fileLength) }

  /// Reads in what is not in memory, by all read lanes, and waits for it.
  func bringIn() {
    if hr_is_resident(pages, usedLength) == 1 { return }
    let isDone = Gate(false)
    _ = lanes.start([touch(from: 0, to: usedLength)], keep: [self]) { _ in
      isDone.withLock { $0 = true }
      isDone.broadcast()
    }
    _ = isDone.wait { $0 ? true : nil }
  }

  /// Reads in the pages around a range without waiting.
  func prefetch(from start: Int, to end: Int) {
    let first = start & ~(hr_page_size() - 1)
    let last = min(end, first + Self.maxPrefetch)
    if first >= last || hr_is_resident(pages + first, last - first) == 1 { return }
    let number = prefetches.withLock { prefetches in
      prefetches.number += 1
      return prefetches.number
    }
    let hasEnded = Locked(false)
    let work = lanes.start([touch(from: first, to: last)], keep: [self]) { [self] _ in
      hasEnded.withLock { $0 = true }
      prefetches.withLock { $0.running[number] = nil }
    }
    let mustStop = prefetches.withLock { prefetches in
      if !hasEnded.withLock({ $0 }) { prefetches.running[number] = work }
      return prefetches.isStopped
    }
    if mustStop { work.stop() }
  }

  /// The handle is closed: nothing more needs to be brought in.
  func stopPrefetching() {
    let running = prefetches.withLock { prefetches in
      prefetches.isStopped = true
      return Array(prefetches.running.values)
    }
    for work in running { work.stop() }
  }

  /// Tells the system of a range. What is no longer needed may share its first and last page with what is.
  func advise(_ advice: Int32, from start: Int, to end: Int) {
    let page = hr_page_size()
    let isInward = advice == HR_DONT_NEED
    let first = isInward ? (start + page - 1) & ~(page - 1) : start & ~(page - 1)
    let last = isInward ? end & ~(page - 1) : end
    if first < last { _ = hr_advise(pages + first, last - first, advice) }
  }

  private func touch(from start: Int, to end: Int) -> Move {
    Move(
      operation: .touch, request: 0, descriptor: descriptor.number, fileOffset: fileOffset + start,
      target: pages + start, source: nil, byteLength: end - start,
      mappedLength: fileLength, bypassesCache: descriptor.bypassesCache)
  }
}

extension File {
  /// A window around `[offset, offset + byteLength)` as a read-only buffer. HR_OUT_OF_RANGE, HR_FILE_CHANGED, HR_IO; with
  /// HR_DECLINED says why the range should be read instead.
  func map(offset: Int, byteLength: Int, device: Device) throws(Failure) -> Buffer {
    try checkMappable()
    let fileLength = isWritable ? try descriptor.length() : self.byteLength
    guard contains(fileLength, offset, byteLength) else {
      throw rangeFailure("", offset, byteLength, fileLength)
    }
    if byteLength == 0 { throw Failure(Status.declined, "a mapping cannot have 0 bytes") }
    try descriptor.checkLength(fileLength)
    guard let window = Window(offset: offset, byteLength: byteLength, pageSize: device.pageSize) else {
      throw Failure(Status.declined, "\(byteLength) bytes from \(offset) on end past the largest address")
    }
    try checkWorthMapping(window, device)
    try device.mappings.take(window.byteLength)
    let metal: any MTLBuffer
    do throws(Failure) {
      metal = try mapWindow(window, device)
    } catch {
      device.mappings.giveBack(window.byteLength)
      throw error
    }
    let pages = metal.contents()
    let mapping = Mapping(
      descriptor: descriptor, fileLength: fileLength, window: window, pages: pages,
      usedLength: window.offset + byteLength, lanes: device.lanes)
    return Buffer(
      device: device, metal: metal, bytes: pages + window.offset, byteLength: byteLength, offset: window.offset,
      isWritable: false, mapping: mapping)
  }

  private func checkWorthMapping(_ window: Window, _ device: Device) throws(Failure) {
    guard device.metal.hasUnifiedMemory else {
      throw Failure(Status.declined, "\(device.metal.name) has memory of its own, and would read a mapping over a bus")
    }
    let most = device.metal.maxBufferLength
    guard window.byteLength <= most else {
      throw Failure(Status.declined, "\(window.byteLength) bytes of pages are over the \(most) of a buffer")
    }
    let isLocal = hr_is_local(descriptor.number)
    if isLocal < 0 { throw Failure.io("finding its volume", errno: -isLocal) }
    if isLocal == 0 {
      throw Failure(Status.declined, "lies on a network volume, whose pages may come too late for a GPU")
    }
  }

  /// The budget has `window.byteLength` bytes for it, which the buffer gives back at its end.
  private func mapWindow(_ window: Window, _ device: Device) throws(Failure) -> any MTLBuffer {
    var address: UnsafeMutableRawPointer?
    let result = hr_map_file(descriptor.number, Int64(window.start), window.byteLength, &address)
    guard result == 0, let address else {
      throw Failure(Status.declined, "mapping \(window.byteLength) bytes: \(errnoName(-result))", osErrno: -result)
    }
    let budget = device.mappings
    let buffer = device.metal.makeBuffer(
      bytesNoCopy: address, length: window.byteLength, options: .storageModeShared
    ) { pages, length in
      _ = hr_unmap(pages, length)
      budget.giveBack(length)
    }
    guard let buffer else {
      _ = hr_unmap(address, window.byteLength)
      throw Failure(Status.declined, "\(device.metal.name) made no buffer over \(window.byteLength) mapped bytes")
    }
    return buffer
  }
}

/// HR_OUT_OF_RANGE. `what` ends in ": " or is empty.
func rangeFailure(_ what: String, _ offset: Int, _ byteLength: Int, _ limit: Int) -> Failure {
  let (end, overflow) = offset.addingReportingOverflow(byteLength)
  let range = overflow ? "\(byteLength) bytes from \(offset) on" : "bytes [\(offset), \(end))"
  return Failure(Status.outOfRange, "\(what)\(range) do not lie in its \(limit) bytes")
}
