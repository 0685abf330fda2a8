import CHeadrace
import Metal

/// Encodes operations into one command buffer: copies by blit encoders, launches by serial compute encoders, whose
/// commands wait for one another. A fence orders the encoders, also those of command buffers before.
struct GPUEncoder {
  private let commands: any MTLCommandBuffer
  private let fence: any MTLFence
  private let queue: GPUQueue
  private var blit: (any MTLBlitCommandEncoder)?
  private var compute: (any MTLComputeCommandEncoder)?
  /// What the compute encoder has bound.
  private var pipeline: Pipeline?
  private var bound: [Buffer?] = []
  private var boundOffsets: [Int] = []
  /// Offsets of the replay being encoded, by slot; -1 for none.
  private var slots: [Int] = []

  init(commands: any MTLCommandBuffer, fence: any MTLFence, queue: GPUQueue) {
    self.commands = commands
    self.fence = fence
    self.queue = queue
  }

  /// HR_DEVICE_FAILED; HR_COMPILE_FAILED for the library's own kernel.
  mutating func encode(_ operation: GPUOperation) throws(Failure) {
    switch operation {
    case .copy(let source, let sourceOffset, let target, let targetOffset, let byteLength):
      try copy(source, source.offset + sourceOffset, target, target.offset + targetOffset, byteLength)
    case .dispatch(let dispatch):
      try launch(dispatch)
    case .replay(let sequence, let offsets):
      slots.removeAll(keepingCapacity: true)
      for _ in 0..<sequence.slotCount { slots.append(-1) }
      for offset in offsets { slots[offset.slot] = offset.offset }
      for dispatch in sequence.dispatches { try launch(dispatch) }
      slots.removeAll(keepingCapacity: true)
    }
  }

  /// Ends the encoder that is open. More may follow.
  mutating func end() {
    if let blit {
      blit.updateFence(fence)
      blit.endEncoding()
    }
    if let compute {
      compute.updateFence(fence)
      compute.endEncoding()
    }
    blit = nil
    compute = nil
  }

  private mutating func copy(_ source: Buffer, _ from: Int, _ target: Buffer, _ to: Int, _ byteLength: Int) throws(Failure) {
    if byteLength == 0 { return }
    // What Metal's blit takes on macOS.
    if (from | to | byteLength) & 3 == 0 {
      let encoder = try blitEncoder()
      encoder.copy(from: source.metal, sourceOffset: from, to: target.metal, destinationOffset: to, size: byteLength)
      return
    }
    let pipeline = try queue.byteCopyPipeline()
    let encoder = try computeEncoder()
    use(pipeline, encoder)
    bind(source, from, 0, encoder)
    bind(target, to, 1, encoder)
    var length = UInt64(byteLength)
    encoder.setBytes(&length, length: 8, index: 2)
    forget(2)
    let width = min(Dispatch.defaultGroup, pipeline.metal.maxTotalThreadsPerThreadgroup)
    encoder.dispatchThreads(
      MTLSize(width: (byteLength + 15) / 16, height: 1, depth: 1), threadsPerThreadgroup: MTLSize(width: width, height: 1, depth: 1))
  }

  private mutating func launch(_ dispatch: Dispatch) throws(Failure) {
    switch dispatch.work {
    case .kernel(let kernel): try launch(kernel, dispatch)
    case .product(let product):
      // It makes encoders of its own, which Metal orders by the buffers that they use.
      end()
      product.encode(into: commands, dispatch.bindings.map { ($0, offset(of: $0)) })
    }
  }

  private mutating func launch(_ kernel: KernelLaunch, _ dispatch: Dispatch) throws(Failure) {
    if kernel.isEmpty { return }
    let encoder = try computeEncoder()
    use(kernel.pipeline, encoder)
    for binding in dispatch.bindings { bind(binding.buffer, offset(of: binding), binding.index, encoder) }
    if !kernel.constants.isEmpty {
      kernel.constants.withUnsafeBytes { bytes in
        if let start = bytes.baseAddress { encoder.setBytes(start, length: bytes.count, index: kernel.constantsIndex) }
      }
      forget(kernel.constantsIndex)
    }
    if kernel.groupMemory > 0 { encoder.setThreadgroupMemoryLength(kernel.groupMemory, index: 0) }
    for buffer in dispatch.special { useTable(of: buffer, encoder) }
    encoder.dispatchThreads(kernel.threads, threadsPerThreadgroup: kernel.group)
  }

  /// Where a binding's bytes start in its MTLBuffer, by the replay being encoded.
  private func offset(of binding: Binding) -> Int {
    guard binding.slot >= 0, binding.slot < slots.count, slots[binding.slot] >= 0 else { return binding.offset }
    return binding.buffer.offset + slots[binding.slot]
  }

  /// Kernels reach the buffers of an address table by address alone, so Metal has to be told of them.
  private func useTable(of buffer: Buffer, _ encoder: any MTLComputeCommandEncoder) {
    for child in buffer.table {
      encoder.useResource(child.metal, usage: child.isWritable ? [.read, .write] : .read)
      useTable(of: child, encoder)
    }
  }

  private mutating func use(_ pipeline: Pipeline, _ encoder: any MTLComputeCommandEncoder) {
    if self.pipeline === pipeline { return }
    encoder.setComputePipelineState(pipeline.metal)
    self.pipeline = pipeline
  }

  /// Tells Metal what differs from what is bound already.
  private mutating func bind(_ buffer: Buffer, _ offset: Int, _ index: Int, _ encoder: any MTLComputeCommandEncoder) {
    if bound[index] !== buffer {
      encoder.setBuffer(buffer.metal, offset: offset, index: index)
    } else if boundOffsets[index] != offset {
      encoder.setBufferOffset(offset, index: index)
    }
    bound[index] = buffer
    boundOffsets[index] = offset
  }

  /// Bytes are bound at `index` instead of a buffer.
  private mutating func forget(_ index: Int) { bound[index] = nil }

  private mutating func blitEncoder() throws(Failure) -> any MTLBlitCommandEncoder {
    if let blit { return blit }
    end()
    guard let made = commands.makeBlitCommandEncoder() else { throw noEncoder() }
    made.waitForFence(fence)
    blit = made
    return made
  }

  private mutating func computeEncoder() throws(Failure) -> any MTLComputeCommandEncoder {
    if let compute { return compute }
    end()
    guard let made = commands.makeComputeCommandEncoder() else { throw noEncoder() }
    made.waitForFence(fence)
    compute = made
    pipeline = nil
    bound = [Buffer?](repeating: nil, count: Dispatch.maxBuffers)
    boundOffsets = [Int](repeating: 0, count: Dispatch.maxBuffers)
    return made
  }

  private func noEncoder() -> Failure {
    Failure(Status.deviceFailed, "\(queue.device.metal.name) made no encoder")
  }
}
