import CHeadrace
import XCTest

@testable import HeadraceMetal

/// A launch as tests say it: buffers are indices of the submission's objects, or handles in a sequence.
struct Launch {
  struct Bound {
    var buffer: Int
    var offset = 0.0
    var index: Double?
    var slot = -1.0
  }
  var pipeline: hr_handle
  var buffers: [Bound]
  var constants: [UInt8] = []
  var threads: (UInt32, UInt32, UInt32)
  var group: (UInt32, UInt32, UInt32) = (0, 0, 0)
  var groupMemory: UInt32 = 0

  init(_ pipeline: hr_handle, _ buffers: [Int], _ constants: [UInt8] = [], threads: Int) {
    self.pipeline = pipeline
    self.buffers = buffers.map { Bound(buffer: $0) }
    self.constants = constants
    self.threads = (UInt32(threads), 1, 1)
  }
}

/// The ABI's rows for launches.
struct LaunchRows {
  var dispatches: [hr_dispatch] = []
  var bindings: [hr_binding] = []
  var constants: [UInt8] = []

  init(_ launches: [Launch]) {
    for launch in launches {
      dispatches.append(
        hr_dispatch(
          pipeline: launch.pipeline, first_binding: UInt32(bindings.count), binding_count: UInt32(launch.buffers.count),
          constants_offset: UInt32(constants.count), constants_length: UInt32(launch.constants.count),
          constants_index: UInt32(launch.buffers.count), threads: launch.threads, group: launch.group,
          threadgroup_memory: launch.groupMemory, reserved: 0))
      for (index, bound) in launch.buffers.enumerated() {
        bindings.append(
          hr_binding(buffer: Double(bound.buffer), offset: bound.offset, index: bound.index ?? Double(index), slot: bound.slot))
      }
      constants += launch.constants
    }
  }
}

func bytes(_ values: UInt32...) -> [UInt8] {
  values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) } }
}

extension Rig {
  func library(_ source: String, macros: String? = nil, language: UInt32 = 0) throws -> hr_handle {
    var library: hr_handle = 0
    try call { error in
      guard let macros else { return hr_library_create(device, source, nil, language, &library, error) }
      return hr_library_create(device, source, macros, language, &library, error)
    }
    return library
  }

  func pipeline(
    _ library: hr_handle, _ name: String, _ constants: [hr_constant] = [], archive: String? = nil
  ) throws -> (handle: hr_handle, info: hr_pipeline_info) {
    var pipeline: hr_handle = 0
    var info = hr_pipeline_info()
    try call { error in
      guard let archive else { return hr_pipeline_create(library, name, constants, UInt32(constants.count), nil, &pipeline, &info, error) }
      return hr_pipeline_create(library, name, constants, UInt32(constants.count), archive, &pipeline, &info, error)
    }
    return (pipeline, info)
  }

  func kernel(_ source: String, _ name: String) throws -> hr_handle {
    try pipeline(library(source), name).handle
  }

  func sequence(_ launches: [Launch]) throws -> hr_handle {
    let rows = LaunchRows(launches)
    var sequence: hr_handle = 0
    try call {
      hr_sequence_create(
        device, rows.dispatches, UInt32(rows.dispatches.count), rows.bindings, UInt32(rows.bindings.count), rows.constants,
        UInt32(rows.constants.count), &sequence, $0)
    }
    return sequence
  }

  /// Submits requests whose dispatches number `launches`.
  func submit(
    _ requests: [hr_request], _ objects: [hr_handle], launches: [Launch], offsets: [hr_offset] = [], ticket: Double
  ) throws {
    let rows = LaunchRows(launches)
    try requests.withUnsafeBufferPointer { requests in
      try objects.withUnsafeBufferPointer { objects in
        try rows.dispatches.withUnsafeBufferPointer { dispatches in
          try rows.bindings.withUnsafeBufferPointer { bindings in
            try rows.constants.withUnsafeBufferPointer { constants in
              try offsets.withUnsafeBufferPointer { offsets in
                var submission = hr_submission(
                  requests: requests.baseAddress, objects: objects.baseAddress, dispatches: dispatches.baseAddress,
                  bindings: bindings.baseAddress, constants: constants.baseAddress, offsets: offsets.baseAddress,
                  request_count: UInt32(requests.count), object_count: UInt32(objects.count),
                  dispatch_count: UInt32(dispatches.count), binding_count: UInt32(bindings.count),
                  constants_length: UInt32(constants.count), offset_count: UInt32(offsets.count))
                try call { hr_queue_submit(queue, &submission, ticket, nil, $0) }
              }
            }
          }
        }
      }
    }
  }

  /// Runs launches one after the other as a ticket of its own; gives its row.
  @discardableResult
  func launch(_ launches: [Launch], _ objects: [hr_handle], ticket: Double) throws -> hr_completion {
    let requests = launches.indices.map { request(HR_DISPATCH, Double($0)) }
    try submit(requests, objects, launches: launches, ticket: ticket)
    return try end(of: ticket)
  }

  func words(_ buffer: hr_handle) throws -> UnsafeMutableBufferPointer<UInt32> {
    let bytes = UnsafeMutableRawBufferPointer(try self.bytes(buffer))
    return bytes.bindMemory(to: UInt32.self)
  }
}

/// Kernels that most tests use.
enum Sources {
  static let words = """
    #include <metal_stdlib>
    using namespace metal;
    struct P { uint value; uint count; };
    kernel void set(device uint *out [[buffer(0)]], constant P &p [[buffer(1)]], uint i [[thread_position_in_grid]]) {
      if (i < p.count) out[i] = p.value + i;
    }
    /* Depends on the order of launches. */
    kernel void step(device uint *out [[buffer(0)]], constant P &p [[buffer(1)]], uint i [[thread_position_in_grid]]) {
      if (i < p.count) out[i] = out[i] * 3 + p.value;
    }
    kernel void sum(const device uint *in [[buffer(0)]], device uint *out [[buffer(1)]], threadgroup uint *shared [[threadgroup(0)]],
        uint i [[thread_position_in_grid]], uint lane [[thread_position_in_threadgroup]], uint group [[threadgroup_position_in_grid]],
        uint width [[threads_per_threadgroup]]) {
      shared[lane] = in[i];
      threadgroup_barrier(mem_flags::mem_threadgroup);
      if (lane == 0) { uint sum = 0; for (uint n = 0; n < width; n++) sum += shared[n]; out[group] = sum; }
    }
    kernel void move(const device uint *in [[buffer(0)]], device uint *out [[buffer(1)]], uint i [[thread_position_in_grid]]) { out[i] = in[i]; }
    """
}
