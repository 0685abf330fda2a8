import CHeadrace
import Foundation
import Metal

/// What goes into one command buffer.
struct StreamBatch: Sendable {
  let run: StreamRun
  let isCompressed: Bool
  private(set) var loads: [StreamLoad] = []
  private(set) var byteLength = 0
  /// An estimate from above of the scratch memory that MTLIO will ask for: the stored bytes of compressed loads, which
  /// are fewer than the content's but for chunks at both ends, and the whole of loads into private memory.
  private(set) var scratchBytes = 0

  /// The request that all loads belong to; nil where there are several, or none is known.
  var request: Int? {
    guard let first = loads.first?.request else { return nil }
    return loads.allSatisfy { $0.request == first } ? first : nil
  }

  init(run: StreamRun, isCompressed: Bool) {
    self.run = run
    self.isCompressed = isCompressed
  }

  mutating func add(_ load: StreamLoad) {
    loads.append(load)
    byteLength += load.byteLength
    if isCompressed { scratchBytes += load.byteLength + ScratchAllocator.granule }
    if load.target.isPrivate { scratchBytes += load.byteLength }
  }
}

/// A command buffer that was committed: only `tryCancel`, `status` and `error` are used, from any thread.
struct CommittedLoads: @unchecked Sendable {
  let commandBuffer: any MTLIOCommandBuffer
}

/// One MTLIO queue, made when first needed, and the dispatch queue that encodes for it, where `makeCommandBuffer` may
/// block without harm.
final class StreamLane: @unchecked Sendable {  // `queue` is used on `encoding` alone.
  private let number: Int
  private let metal: any MTLDevice
  private let options: Options
  private let scratch: ScratchAllocator
  private let encoding: DispatchQueue
  private var queue: (any MTLIOCommandQueue)?

  init(number: Int, metal: any MTLDevice, options: Options, scratch: ScratchAllocator) {
    self.number = number
    self.metal = metal
    self.options = options
    self.scratch = scratch
    encoding = DispatchQueue(label: "headrace.stream.\(number)", qos: .userInitiated)
  }

  /// Encodes and commits; `ended` comes once, with the bytes that were loaded and the failure, on any thread.
  func submit(_ batch: StreamBatch, ended: @escaping @Sendable (Int, Failure?) -> Void) {
    encoding.async {
      autoreleasepool {
        // Nothing is made for a run that was stopped meanwhile.
        guard let key = batch.run.took() else { return ended(0, nil) }
        do throws(Failure) {
          try self.commit(batch, key, ended)
        } catch {
          batch.run.left(key)
          ended(0, error)
        }
      }
    }
  }

  private func commit(
    _ batch: StreamBatch, _ key: Int, _ ended: @escaping @Sendable (Int, Failure?) -> Void
  ) throws(Failure) {
    let commandBuffer = try makeQueue().makeCommandBuffer()
    for load in batch.loads {
      commandBuffer.load(
        load.target.metal, offset: load.target.offset + load.targetOffset, size: load.byteLength,
        sourceHandle: load.file.handle, sourceHandleOffset: load.fileOffset)
    }
    let scratch = self.scratch
    commandBuffer.addCompletedHandler { commandBuffer in
      // Holds the batch, and so buffers and files, up to here.
      batch.run.left(key)
      let failure = Self.failure(commandBuffer, batch, scratch)?.of(request: batch.request)
      ended(commandBuffer.status == .complete ? batch.byteLength : 0, failure)
    }
    let encodedMs = clockMs()
    commandBuffer.commit()
    batch.run.committed(key, CommittedLoads(commandBuffer: commandBuffer), encodedMs: encodedMs)
  }

  private func makeQueue() throws(Failure) -> any MTLIOCommandQueue {
    if let queue { return queue }
    let descriptor = MTLIOCommandQueueDescriptor()
    descriptor.maxCommandBufferCount = options.ioMaxCommandBuffers
    descriptor.maxCommandsInFlight = options.ioMaxCommands
    descriptor.priority = MTLIOPriority(rawValue: options.ioPriority) ?? .high
    descriptor.type = options.ioSerial ? .serial : .concurrent
    descriptor.scratchBufferAllocator = scratch
    do {
      let made = try metal.makeIOCommandQueue(descriptor: descriptor)
      made.label = "headrace \(number)"
      queue = made
      return made
    } catch {
      throw Failure.metal("making an MTLIO queue", error)
    }
  }

  private static func failure(
    _ commandBuffer: any MTLIOCommandBuffer, _ batch: StreamBatch, _ scratch: ScratchAllocator
  ) -> Failure? {
    let what = "loading \(batch.byteLength) bytes in \(batch.loads.count) parts"
    switch commandBuffer.status {
    case .complete:
      return nil
    case .cancelled:
      // Where the run was stopped, its own failure is there already, and this one is not used.
      return scratch.takeRefusal()
        ?? Failure(Status.io, "\(what): MTLIO cancelled it, as it does without scratch memory")
    default:
      let status = batch.isCompressed ? Status.corrupt : Status.io
      guard let error = commandBuffer.error else {
        return Failure(status, "\(what): MTLIO ended with status \(commandBuffer.status.rawValue) and no error")
      }
      return Failure.metal(what, error, status: status)
    }
  }
}
