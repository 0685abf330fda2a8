// Binary archives of the stand-in: the objects of pipelines in a file.
import Foundation

final class StandInArchive: NSObject, MTLBinaryArchive, @unchecked Sendable {
  // Sendable because what changes is behind `objects`, but the label, which only the program that sets it reads.
  /// The file. Its objects stand behind their fingerprint, so that a damaged one is not run.
  private struct Content: Codable {
    var format = "headrace stand-in archive 1"
    var objects: [String: Data] = [:]
    var fingerprint = ""

    var expected: String {
      Metal.fingerprint(objects.sorted { $0.key < $1.key }.flatMap { Array($0.key.utf8) + Array($0.value) })
    }
  }

  let owner: StandInDevice
  var label: String?
  var device: any MTLDevice { owner }
  private let objects: Guarded<[String: Data]>

  init(device: StandInDevice, url: URL?) throws {
    owner = device
    objects = Guarded(try url.map(Self.read) ?? [:])
    super.init()
  }

  private static func read(_ url: URL) throws -> [String: Data] {
    guard let bytes = try? Data(contentsOf: url) else { throw archiveError(.invalidFile, "\(url.path) cannot be read") }
    guard let content = try? JSONDecoder().decode(Content.self, from: bytes), content.format == Content().format,
      content.fingerprint == content.expected
    else { throw archiveError(.invalidFile, "\(url.path) is not a binary archive") }
    return content.objects
  }

  func find(_ key: String) -> [UInt8]? {
    objects.withLock { $0[key].map(Array.init) }
  }

  func addComputePipelineFunctions(descriptor: MTLComputePipelineDescriptor) throws {
    let function = owner.ownFunction(of: descriptor, "addComputePipelineFunctions")
    let key = function.key
    if objects.withLock({ $0[key] != nil }) { return }
    let object: CompiledObject
    do throws(CompileError) { object = try function.compile() } catch {
      throw archiveError(.compilationFailure, "\(function.name): \(error)")
    }
    objects.withLock { $0[key] = Data(object.bytes) }
  }

  func serialize(to url: URL) throws {
    var content = Content(objects: objects.withLock { $0 })
    if content.objects.isEmpty { throw archiveError(.internalError, "there is nothing to serialize") }
    content.fingerprint = content.expected
    do { try JSONEncoder().encode(content).write(to: url) } catch {
      throw archiveError(.internalError, "\(url.path) cannot be written: \(error)")
    }
  }
}

private func archiveError(_ code: MTLBinaryArchiveError.Code, _ text: String) -> NSError {
  NSError(domain: MTLBinaryArchiveDomain, code: Int(code.rawValue), userInfo: [NSLocalizedDescriptionKey: text])
}

extension StandInDevice {
  public func makeBinaryArchive(descriptor: MTLBinaryArchiveDescriptor) throws -> any MTLBinaryArchive {
    try StandInArchive(device: self, url: descriptor.url)
  }
}
