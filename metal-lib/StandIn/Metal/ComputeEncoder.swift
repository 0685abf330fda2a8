// The compute encoder of the stand-in: it checks as Apple's validation does, and records launches.
import CStandIn
import Foundation

extension StandInCommandBuffer {
  public func makeComputeCommandEncoder() -> (any MTLComputeCommandEncoder)? {
    StandInComputeEncoder(self, dispatchType: .serial)
  }

  public func makeComputeCommandEncoder(dispatchType: MTLDispatchType) -> (any MTLComputeCommandEncoder)? {
    StandInComputeEncoder(self, dispatchType: dispatchType)
  }
}

final class StandInComputeEncoder: StandInEncoder, MTLComputeCommandEncoder, @unchecked Sendable {
  private enum Binding {
    case buffer(StandInBuffer, offset: Int)
    case bytes([UInt8])
  }
  private typealias Work = @Sendable ([StandInBuffer]) throws(MTLCommandBufferError) -> Void

  let dispatchType: MTLDispatchType
  private var pipeline: StandInPipeline?
  private var bindings = [Binding?](repeating: nil, count: STANDIN_MAX_BUFFERS)
  private var groupMemory = [Int](repeating: 0, count: STANDIN_MAX_BUFFERS)
  /// Launches of a concurrent encoder since the last barrier.
  private var pending: [(buffers: [StandInBuffer], work: Work)] = []

  init(_ commandBuffer: StandInCommandBuffer, dispatchType: MTLDispatchType) {
    self.dispatchType = dispatchType
    super.init(commandBuffer)
  }

  override func endEncoding() {
    flush()
    super.endEncoding()
  }

  func setComputePipelineState(_ state: any MTLComputePipelineState) {
    checkOpen("setComputePipelineState")
    guard let state = state as? StandInPipeline, state.owner === owner else {
      trap("setComputePipelineState: the pipeline belongs to another device")
    }
    pipeline = state
  }

  func setBytes(_ bytes: UnsafeRawPointer, length: Int, index: Int) {
    checkIndex("setBytes", index)
    if length <= 0 || length > 4096 { trap("setBytes: length \(length) must be in 1 to 4096") }
    bindings[index] = .bytes(Array(UnsafeRawBufferPointer(start: bytes, count: length)))
  }

  func setBuffer(_ buffer: (any MTLBuffer)?, offset: Int, index: Int) {
    checkIndex("setBuffer", index)
    guard let buffer else {
      bindings[index] = nil
      return
    }
    let own = StandInBuffer.of(buffer, on: owner, "setBuffer")
    checkOffset("setBuffer", own, offset)
    bindings[index] = .buffer(own, offset: offset)
  }

  func setBufferOffset(_ offset: Int, index: Int) {
    checkIndex("setBufferOffset", index)
    guard case .buffer(let buffer, _) = bindings[index] else { trap("setBufferOffset: no buffer is bound at index \(index)") }
    checkOffset("setBufferOffset", buffer, offset)
    bindings[index] = .buffer(buffer, offset: offset)
  }

  func setThreadgroupMemoryLength(_ length: Int, index: Int) {
    checkIndex("setThreadgroupMemoryLength", index)
    if length < 0 || length % 16 != 0 { trap("setThreadgroupMemoryLength: length \(length) must be a multiple of 16") }
    if length > owner.maxThreadgroupMemoryLength {
      trap("setThreadgroupMemoryLength: length \(length) is above \(owner.maxThreadgroupMemoryLength)")
    }
    groupMemory[index] = length
  }

  func useResource(_ resource: any MTLResource, usage: MTLResourceUsage) {
    checkOpen("useResource")
    guard let buffer = resource as? any MTLBuffer else { trap("useResource: the stand-in knows buffers only") }
    // Nothing to do but to be there when the command buffer runs.
    record("useResource", using: [StandInBuffer.of(buffer, on: owner, "useResource")]) { _ in }
  }

  // Command buffers of a queue run one after the other here, so fences order nothing more.
  func updateFence(_ fence: any MTLFence) {
    checkFence(fence, "updateFence")
  }

  func waitForFence(_ fence: any MTLFence) {
    checkFence(fence, "waitForFence")
  }

  private func checkFence(_ fence: any MTLFence, _ call: String) {
    checkOpen(call)
    if (fence as? StandInFence)?.owner !== owner { trap("\(call): the fence belongs to another device") }
  }

  func useHeap(_ heap: any MTLHeap) {
    checkOpen("useHeap")
  }

  func memoryBarrier(scope: MTLBarrierScope) {
    checkOpen("memoryBarrier")
    if scope.isEmpty { trap("memoryBarrier: the scope is empty") }
    flush()
  }

  func memoryBarrier(resources: [any MTLResource]) {
    checkOpen("memoryBarrier")
    if resources.isEmpty { trap("memoryBarrier: there are no resources") }
    flush()
  }

  func dispatchThreadgroups(_ threadgroupsPerGrid: MTLSize, threadsPerThreadgroup: MTLSize) {
    let groups = threadgroupsPerGrid
    let group = threadsPerThreadgroup
    let grid = MTLSize(width: groups.width * group.width, height: groups.height * group.height, depth: groups.depth * group.depth)
    dispatch("dispatchThreadgroups", grid: grid, group: group)
  }

  func dispatchThreads(_ threadsPerGrid: MTLSize, threadsPerThreadgroup: MTLSize) {
    dispatch("dispatchThreads", grid: threadsPerGrid, group: threadsPerThreadgroup)
  }

  // MARK: Launches

  private func dispatch(_ call: String, grid: MTLSize, group: MTLSize) {
    checkOpen(call)
    guard let pipeline else { trap("\(call): no pipeline is set") }
    checkSizes(call, pipeline, grid: grid, group: group)
    var kernel = standin_kernel()
    kernel.run_thread = pipeline.kernel.runThread
    kernel.run_group = pipeline.kernel.runGroup
    kernel.cooperates = pipeline.kernel.text.cooperates ? 1 : 0
    checkArguments(call, pipeline, &kernel)
    let (buffers, offsets, inline) = split()
    let launch = Launch(kernel: kernel, name: pipeline.kernel.text.name, grid: grid, group: group)
    add(call, buffers) { buffers throws(MTLCommandBufferError) in
      try launch.run(buffers, offsets: offsets, inline: inline)
    }
  }

  /// The bound buffers with their indices and offsets, and the bound bytes with their indices.
  private func split() -> ([StandInBuffer], [(index: Int, offset: Int)], [(index: Int, bytes: [UInt8])]) {
    var buffers: [StandInBuffer] = []
    var offsets: [(index: Int, offset: Int)] = []
    var inline: [(index: Int, bytes: [UInt8])] = []
    for (index, binding) in bindings.enumerated() {
      switch binding {
      case .buffer(let buffer, let offset):
        buffers.append(buffer)
        offsets.append((index, offset))
      case .bytes(let bytes): inline.append((index, bytes))
      case nil: break
      }
    }
    return (buffers, offsets, inline)
  }

  /// Serial launches run in order; concurrent ones may run in any, so they run backwards.
  private func add(_ call: String, _ buffers: [StandInBuffer], _ work: @escaping Work) {
    if dispatchType == .serial {
      record(call, using: buffers, work)
    } else {
      pending.append((buffers, work))
    }
  }

  private func flush() {
    for launch in pending.reversed() { record("dispatch", using: launch.buffers, launch.work) }
    pending = []
  }

  // MARK: Checks

  private func checkIndex(_ call: String, _ index: Int) {
    checkOpen(call)
    if !bindings.indices.contains(index) { trap("\(call): index \(index) must be in 0 to 30") }
  }

  private func checkOffset(_ call: String, _ buffer: StandInBuffer, _ offset: Int) {
    if offset < 0 || offset >= buffer.length { trap("\(call): offset \(offset) is outside the buffer's \(buffer.length) bytes") }
  }

  private func checkSizes(_ call: String, _ pipeline: StandInPipeline, grid: MTLSize, group: MTLSize) {
    let name = pipeline.kernel.text.name
    for size in [grid.width, grid.height, grid.depth, group.width, group.height, group.depth] where size <= 0 || size > Int(UInt32.max) {
      trap("\(call) of \(name): a size is \(size), and must be in 1 to \(UInt32.max)")
    }
    let threads = group.width * group.height * group.depth
    if threads > pipeline.maxTotalThreadsPerThreadgroup {
      trap("\(call) of \(name): a threadgroup of \(threads) threads is above \(pipeline.maxTotalThreadsPerThreadgroup)")
    }
    if pipeline.needsWholeSimdgroups && threads % pipeline.threadExecutionWidth != 0 {
      trap("\(call) of \(name): a threadgroup of \(threads) threads is no multiple of \(pipeline.threadExecutionWidth)")
    }
  }

  private func checkArguments(_ call: String, _ pipeline: StandInPipeline, _ kernel: inout standin_kernel) {
    let compiled = pipeline.kernel
    var used = compiled.staticMemory
    for (number, argument) in compiled.text.arguments.enumerated() {
      let what = "\(call) of \(compiled.text.name): argument \(argument.name)"
      switch argument.source {
      case .place: break
      case .buffer(let index):
        checkBinding("\(what) at buffer index \(index)", bindings[index], compiled.argumentBytes[number], compiled.argumentAlignments[number])
      case .groupMemory(let index):
        let length = groupMemory[index]
        if length == 0 { trap("\(what) at threadgroup index \(index) has no memory") }
        used += length
        withUnsafeMutableBytes(of: &kernel.group_memory) { $0.bindMemory(to: UInt32.self)[index] = UInt32(length) }
      }
    }
    if used > owner.maxThreadgroupMemoryLength {
      trap("\(call) of \(compiled.text.name): \(used) bytes of threadgroup memory are above \(owner.maxThreadgroupMemoryLength)")
    }
  }

  private func checkBinding(_ what: String, _ binding: Binding?, _ needed: Int, _ alignment: Int) {
    switch binding {
    case nil: trap("\(what) is not bound")
    case .bytes(let bytes):
      if bytes.count < needed { trap("\(what) needs \(needed) bytes, and \(bytes.count) are bound") }
    case .buffer(let buffer, let offset):
      if buffer.length - offset < needed { trap("\(what) needs \(needed) bytes, and the buffer has \(buffer.length - offset) behind offset \(offset)") }
      if offset % alignment != 0 { trap("\(what): offset \(offset) must be a multiple of \(alignment)") }
    }
  }
}
