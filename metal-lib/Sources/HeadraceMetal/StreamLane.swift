import CHeadrace
import Foundation
import Metal

/// A command buffer that was committed: only `tryCancel`, `status` and `error` are used, from any thread.
struct CommittedLoads: @unchecked Sendable {
  let commandBuffer: any MTLIOCommandBuffer
}

/// One MTLIO queue, made when first needed, and the dispatch queue that encodes for it, where `makeCommandBuffer` may
/// block without harm.
final class StreamLane: @unchecked Sendable {  // `made` is used on `encoding` alone.
  private let number: Int
  private let metal: any MTLDevice
  private let options: Options
  private let scratch: ScratchAllocator
  private let encoding: DispatchQueue
  private var made: Made?

  private struct Made {
    let queue: any MTLIOCommandQueue
    let words: StatusWords
  }

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
    let made = try make()
    let commandBuffer = made.queue.makeCommandBuffer()
    Self.encode(batch, commandBuffer)
    let words = made.words
    let word = words.follow(commandBuffer)
    let scratch = self.scratch
    commandBuffer.addCompletedHandler { commandBuffer in
      // Holds the batch, and so buffers and files, up to here.
      batch.run.left(key)
      let complaint = word.flatMap { words.takeComplaint($0) }
      let failure = Self.failure(commandBuffer, complaint, batch, scratch)?.of(request: batch.request)
      // Before the milestone: what follows a failure is to find itself stopped.
      if let failure { batch.run.fail(failure) }
      batch.milestone?.reach()
      ended(failure == nil ? batch.byteLength : 0, failure)
    }
    let encodedMs = clockMs()
    commandBuffer.commit()
    batch.run.committed(key, CommittedLoads(commandBuffer: commandBuffer), encodedMs: encodedMs)
  }

  private static func encode(_ batch: StreamBatch, _ commandBuffer: any MTLIOCommandBuffer) {
    for milestone in batch.waitsFor { commandBuffer.waitForEvent(milestone.event, value: milestone.value) }
    for (index, load) in batch.loads.enumerated() {
      if batch.barriers.contains(index) { commandBuffer.addBarrier() }
      commandBuffer.load(
        load.target.metal, offset: load.target.offset + load.targetOffset, size: load.byteLength,
        sourceHandle: load.file.handle, sourceHandleOffset: load.fileOffset)
    }
    guard let milestone = batch.milestone else { return }
    // Apple does not say that a signal comes after the loads before it.
    commandBuffer.addBarrier()
    commandBuffer.signalEvent(milestone.event, value: milestone.value)
  }

  private func make() throws(Failure) -> Made {
    if let made { return made }
    let words = try StatusWords(metal: metal, count: options.ioMaxCommandBuffers)
    let descriptor = MTLIOCommandQueueDescriptor()
    descriptor.maxCommandBufferCount = options.ioMaxCommandBuffers
    descriptor.maxCommandsInFlight = options.ioMaxCommands
    descriptor.priority = MTLIOPriority(rawValue: options.ioPriority) ?? .high
    descriptor.type = options.ioSerial ? .serial : .concurrent
    descriptor.scratchBufferAllocator = scratch
    do {
      let queue = try metal.makeIOCommandQueue(descriptor: descriptor)
      queue.label = "headrace \(number)"
      let made = Made(queue: queue, words: words)
      self.made = made
      return made
    } catch {
      throw Failure.metal("making an MTLIO queue", error)
    }
  }

  private static func failure(
    _ commandBuffer: any MTLIOCommandBuffer, _ complaint: Int32?, _ batch: StreamBatch, _ scratch: ScratchAllocator
  ) -> Failure? {
    let what = "loading \(batch.byteLength) bytes in \(batch.loads.count) parts"
    switch commandBuffer.status {
    case .complete:
      guard let complaint else { return nil }
      let status = batch.isCompressed ? Status.corrupt : Status.io
      return Failure(status, "\(what): MTLIO says that it is complete, and wrote status \(complaint)")
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
