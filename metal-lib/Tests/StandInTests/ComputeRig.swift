import Foundation
import Metal
import XCTest

/// A device and a queue, and what it takes to run a kernel once.
final class ComputeRig {
  enum Grid {
    case threads(Int)
    case grid(MTLSize)
  }
  let device: any MTLDevice
  let queue: any MTLCommandQueue

  init() {
    guard let device = MTLCreateSystemDefaultDevice(), let queue = device.makeCommandQueue() else { fatalError("no device") }
    self.device = device
    self.queue = queue
  }

  func buffer(_ length: Int, _ value: (Int) -> UInt8) -> any MTLBuffer {
    guard let buffer = device.makeBuffer(length: length, options: []) else { fatalError("no buffer of \(length) bytes") }
    let bytes = buffer.contents().assumingMemoryBound(to: UInt8.self)
    for i in 0..<length { bytes[i] = value(i) }
    return buffer
  }

  func bytes(_ buffer: any MTLBuffer) -> [UInt8] {
    Array(UnsafeRawBufferPointer(start: buffer.contents(), count: buffer.length))
  }

  func pipeline(_ source: String, _ name: String) throws -> any MTLComputePipelineState {
    let library = try device.makeLibrary(source: source, options: nil)
    return try device.makeComputePipelineState(function: XCTUnwrap(library.makeFunction(name: name)))
  }

  func run(_ source: String, _ name: String, groups: Grid, group: Int = 0, group3: MTLSize? = nil, _ bind: (any MTLComputeCommandEncoder) -> Void) throws {
    try run(pipeline(source, name), groups: groups, group: group, group3: group3, bind)
  }

  func run(
    _ pipeline: any MTLComputePipelineState, groups: Grid, group: Int = 0, group3: MTLSize? = nil, _ bind: (any MTLComputeCommandEncoder) -> Void
  ) throws {
    let ended = try commit(pipeline, groups: groups, group3: group3 ?? MTLSize(width: group, height: 1, depth: 1), bind)
    XCTAssertEqual(ended.status, .completed)
    XCTAssertNil(ended.error)
  }

  func commit(
    _ pipeline: any MTLComputePipelineState, groups: Grid, group3: MTLSize, _ bind: (any MTLComputeCommandEncoder) -> Void
  ) throws -> any MTLCommandBuffer {
    let commands = try XCTUnwrap(queue.makeCommandBuffer())
    let encoder = try XCTUnwrap(commands.makeComputeCommandEncoder())
    encoder.setComputePipelineState(pipeline)
    bind(encoder)
    switch groups {
    case .threads(let count): encoder.dispatchThreads(MTLSize(width: count, height: 1, depth: 1), threadsPerThreadgroup: group3)
    case .grid(let size): encoder.dispatchThreads(size, threadsPerThreadgroup: group3)
    }
    encoder.endEncoding()
    commands.commit()
    commands.waitUntilCompleted()
    return commands
  }
}
