import CHeadrace
import Metal

/// Memory that requests and kernels use. It lives until the last reference to the object, or to its MTLBuffer, goes;
/// `close` only ends the handle, so nothing is unmapped under work in flight.
final class Buffer: Resource, @unchecked Sendable {  // MTLBuffer may be used by any thread; the rest never changes.
  let metal: any MTLBuffer
  /// Byte 0 as the host sees it; nil for private memory.
  let bytes: UnsafeMutableRawPointer?
  let byteLength: Int
  /// Where byte 0 lies in `metal`: the start of a mapping need not be page-aligned.
  let offset: Int
  let isPrivate: Bool
  let isWritable: Bool
  /// The file behind it.
  let mapping: Mapping?
  /// Buffers whose addresses lie in this one, and which are kept with it.
  let table: [Buffer]
  /// Private memory is used only after this has opened.
  let zeroed: Latch?
  private let isResident = Locked(false)

  init(
    device: Device, metal: any MTLBuffer, bytes: UnsafeMutableRawPointer?, byteLength: Int, offset: Int = 0,
    isPrivate: Bool = false, isWritable: Bool = true, mapping: Mapping? = nil, table: [Buffer] = [],
    zeroed: Latch? = nil
  ) {
    self.metal = metal
    self.bytes = bytes
    self.byteLength = byteLength
    self.offset = offset
    self.isPrivate = isPrivate
    self.isWritable = isWritable
    self.mapping = mapping
    self.table = table
    self.zeroed = zeroed
    super.init(kind: .buffer, device: device)
    // A mapping is wired as a whole where it is resident, so it has to be asked for.
    if mapping == nil { makeResident() }
  }

  deinit {
    if isResident.withLock({ $0 }) { owner?.residency.remove(metal) }
  }

  override class var kind: Kind { .buffer }

  override func close() { mapping?.stopPrefetching() }

  /// HR_FILE_CHANGED where the file behind a mapping has become too short to touch it; also for those of a table.
  func checkFile() throws(Failure) {
    try mapping?.checkFile()
    for buffer in table { try buffer.checkFile() }
  }

  /// Brings a mapping's pages in by the CPU: the GPU must not be the first to touch them. Waits for the disk, so never
  /// on a caller's thread. What cannot be read in is left; a following ``checkFile()`` or the GPU will tell.
  func prepareForGPU() {
    if let mapping {
      mapping.bringIn()
      makeResident()
    }
    for buffer in table { buffer.prepareForGPU() }
  }

  private func makeResident() {
    let isNew = isResident.withLock { isResident in
      defer { isResident = true }
      return !isResident
    }
    if isNew { owner?.residency.add(metal) }
  }
}
