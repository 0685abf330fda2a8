import CHeadrace
import Foundation
import Metal

/// A file of compiled pipelines. Each use opens it anew, so that processes that share it see each other's; a lock file
/// beside it lets one at a time add, and readers see the old file or the new one whole.
///
/// A file that is damaged, or of another system or GPU (a stamp beside it tells), is replaced. Failing to read or write
/// costs a compilation and nothing else, so nothing here throws.
struct Archive {
  private let path: String
  private let device: any MTLDevice

  init(path: String, device: any MTLDevice) {
    self.path = path
    self.device = device
  }

  /// The pipeline, if the archive has it, with what it says of its arguments.
  func find(
    _ descriptor: MTLComputePipelineDescriptor, _ reflection: inout MTLComputePipelineReflection?
  ) -> (any MTLComputePipelineState)? {
    guard let archive = open() else { return nil }
    descriptor.binaryArchives = [archive]
    defer { descriptor.binaryArchives = nil }
    return try? device.makeComputePipelineState(
      descriptor: descriptor, options: [.failOnBinaryArchiveMiss, .argumentInfo], reflection: &reflection)
  }

  /// Adds a pipeline to what the file has by now.
  func add(_ descriptor: MTLComputePipelineDescriptor) {
    let lock = hr_open(path + ".lock", true)
    guard lock >= 0 else { return }
    defer { _ = hr_close_descriptor(lock) }
    guard flock(lock, LOCK_EX) == 0 else { return }
    guard let archive = open() ?? (try? device.makeBinaryArchive(descriptor: MTLBinaryArchiveDescriptor())),
      (try? archive.addComputePipelineFunctions(descriptor: descriptor)) != nil
    else { return }
    // The stamp goes first and comes last: a crash in between leaves an archive without one, which is not used.
    let partial = URL(fileURLWithPath: path + ".partial")
    try? FileManager.default.removeItem(at: partial)
    guard (try? archive.serialize(to: partial)) != nil else { return }
    if stampOfFile != stamp { try? FileManager.default.removeItem(atPath: stampPath) }
    guard rename(partial.path, path) == 0 else {
      try? FileManager.default.removeItem(at: partial)
      return
    }
    if stampOfFile != stamp { try? stamp.write(toFile: stampPath, atomically: true, encoding: .utf8) }
  }

  /// nil where there is none that can be used.
  private func open() -> (any MTLBinaryArchive)? {
    guard stampOfFile == stamp, FileManager.default.fileExists(atPath: path) else { return nil }
    let descriptor = MTLBinaryArchiveDescriptor()
    descriptor.url = URL(fileURLWithPath: path)
    return try? device.makeBinaryArchive(descriptor: descriptor)
  }

  private var stampPath: String { path + ".stamp" }
  private var stampOfFile: String? { try? String(contentsOfFile: stampPath, encoding: .utf8) }
  /// What compiled code depends on beside its source.
  private var stamp: String { "\(ProcessInfo.processInfo.operatingSystemVersionString); \(device.name)\n" }
}
