import CHeadrace
import Foundation
import Metal

/// What a run does, one after the other. Copies next to each other may overlap in time.
enum GPUOperation: Sendable {
  case copy(source: Buffer, sourceOffset: Int, target: Buffer, targetOffset: Int, byteLength: Int)
  case dispatch(Dispatch)
  /// With offsets that ``Sequence/check(_:)`` has seen.
  case replay(Sequence, [SlotOffset])

  /// Whether Metal Performance Shaders have a part in it.
  var hasProducts: Bool {
    switch self {
    case .copy: false
    case .dispatch(let dispatch): dispatch.isProduct
    case .replay(let sequence, _): sequence.hasProducts
    }
  }
}

/// The GPU side of a queue: runs start in the order in which they came, and follow one another on the GPU.
///
/// Command buffers do not retain what they use (which saves the GPU's driver time): a run keeps its operations, and with
/// them all buffers, pipelines and sequences, until all of its command buffers have completed. Those with products of
/// matrices retain, for Metal Performance Shaders may use objects of their own that no run knows.
final class GPUQueue: @unchecked Sendable {  // What changes is behind `state`, or is used on `worker` alone.
  /// Operations in one command buffer. More would only delay the first ones.
  static let operationsPerBuffer = 512

  let device: Device
  /// Encodes: making a command buffer waits where 64 are in flight, and mapped pages are waited for.
  let worker: DispatchQueue
  private let state: Locked<State>

  /// A command queue, and the fence that orders its encoders: memory of heaps is not tracked by Metal.
  struct Lane: @unchecked Sendable {  // Metal's objects may be used by any thread.
    let queue: any MTLCommandQueue
    let fence: any MTLFence
  }

  private struct State: Sendable {
    var lane: Lane
    /// Copies bytes at offsets that a blit does not take; made when first needed.
    var byteCopy: Pipeline?
  }

  /// HR_DEVICE_FAILED, HR_DEVICE_LOST.
  init(device: Device) throws(Failure) {
    try device.checkAlive()
    self.device = device
    worker = DispatchQueue(label: "headrace.gpu", qos: .userInitiated)
    state = Locked(State(lane: try Self.makeLane(device)))
  }

  deinit { device.residency.detach(from: lane.queue) }

  /// Starts a run, which waits on the GPU for `milestones`. `ended` comes on any thread, never before this returns on
  /// the same one.
  func start(
    _ operations: [GPUOperation], after milestones: [Milestone] = [], ended: @escaping Ended
  ) -> any RunningWork {
    let run = GPURun(operations, after: milestones, queue: self, ended: ended)
    worker.async { autoreleasepool { run.encode() } }
    return run
  }

  var lane: Lane { state.withLock { $0.lane } }

  /// A command queue in the place of one whose work has failed. Another run may have replaced it already.
  func replace(_ failed: Lane) throws(Failure) {
    if lane.queue !== failed.queue { return }
    let made = try Self.makeLane(device)
    let isReplaced = state.withLock { state in
      guard state.lane.queue === failed.queue else { return false }
      state.lane = made
      return true
    }
    device.residency.detach(from: isReplaced ? failed.queue : made.queue)
  }

  /// HR_COMPILE_FAILED, HR_DEVICE_FAILED.
  func byteCopyPipeline() throws(Failure) -> Pipeline {
    if let known = state.withLock({ $0.byteCopy }) { return known }
    let library = try Library.compile(device: device, source: byteCopySource, macros: "", language: 0)
    let made = try Pipeline.make(library: library, function: "headrace_copy", constants: [], archive: nil)
    state.withLock { $0.byteCopy = made }
    return made
  }

  private static func makeLane(_ device: Device) throws(Failure) -> Lane {
    guard let queue = device.metal.makeCommandQueue(), let fence = device.metal.makeFence() else {
      throw Failure(Status.deviceFailed, "\(device.metal.name) made no command queue")
    }
    queue.label = "headrace"
    device.residency.attach(to: queue)
    return Lane(queue: queue, fence: fence)
  }
}

/// Sixteen bytes a thread.
private let byteCopySource = """
  #include <metal_stdlib>
  using namespace metal;
  kernel void headrace_copy(
      const device uchar *source [[buffer(0)]], device uchar *target [[buffer(1)]], constant ulong &length [[buffer(2)]],
      uint thread_index [[thread_position_in_grid]]) {
    ulong start = ulong(thread_index) * 16;
    ulong end = min(start + 16, length);
    for (ulong i = start; i < end; i++) target[i] = source[i];
  }
  """
