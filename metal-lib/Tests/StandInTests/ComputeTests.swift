import Foundation
import Metal
import XCTest

/// Kernels through the stand-in: compiled from text, and run.
final class ComputeTests: XCTestCase {
  let rig = ComputeRig()

  func testAddsInPlaceFromAnOffset() throws {
    let source = """
      #include <metal_stdlib>
      using namespace metal;
      struct P { uint add; uint threads; };
      kernel void add(device uchar *bytes [[buffer(0)]], constant P &p [[buffer(1)]], uint gid [[thread_position_in_grid]]) {
        if (gid < p.threads) bytes[gid] += uchar(p.add);
      }
      """
    let buffer = rig.buffer(1000) { UInt8(truncatingIfNeeded: $0) }
    try rig.run(source, "add", groups: .threads(1000 - 10), group: 64) { encoder in
      encoder.setBuffer(buffer, offset: 10, index: 0)
      var p: (UInt32, UInt32) = (7, 500)
      encoder.setBytes(&p, length: 8, index: 1)
    }
    let bytes = rig.bytes(buffer)
    for i in 0..<1000 { XCTAssertEqual(bytes[i], UInt8(truncatingIfNeeded: (10..<510).contains(i) ? i + 7 : i), "byte \(i)") }
  }

  func testNumbersAreSinglePrecision() throws {
    let source = """
      #include <metal_stdlib>
      using namespace metal;
      kernel void numbers(device float *out [[buffer(0)]], device half *h [[buffer(1)]], device bfloat *b [[buffer(2)]]) {
        float x = out[0];
        out[1] = x * 0.1;                     // a float, not a double
        out[2] = x * x + out[3];              // two roundings
        out[4] = fma(x, x, out[3]);           // one
        out[5] = precise::exp(x);
        out[6] = float(sizeof(float3)) + float(sizeof(packed_float3)) / 100;
        float4 v = float4(1, 2, 3, 4) * 2.0f;
        out[7] = dot(v, float4(1)) + v.xy.y + v.w;
        h[1] = h[0] * h[0] * h[0];
        b[1] = b[0] + b[0] * bfloat(0.00390625);
        out[8] = as_type<float>(as_type<uint>(x) + 1u);
        out[9] = float(1.0h / 3.0h);
      }
      """
    let buffer = rig.buffer(64) { _ in 0 }
    let floats = buffer.contents().assumingMemoryBound(to: Float.self)
    let x: Float = 1.1
    floats[0] = x
    floats[3] = -1.21
    let halves = rig.buffer(16) { _ in 0 }
    halves.contents().assumingMemoryBound(to: UInt16.self)[0] = 0x3c01  // 1.0009765625
    let brains = rig.buffer(16) { _ in 0 }
    brains.contents().assumingMemoryBound(to: UInt16.self)[0] = 0x3f81  // 1.0078125
    try rig.run(source, "numbers", groups: .threads(1), group: 1) { encoder in
      encoder.setBuffer(buffer, offset: 0, index: 0)
      encoder.setBuffer(halves, offset: 0, index: 1)
      encoder.setBuffer(brains, offset: 0, index: 2)
    }
    XCTAssertEqual(floats[1], x * Float(0.1))
    XCTAssertEqual(floats[2], x * x + Float(-1.21))
    XCTAssertEqual(floats[4], Float(-1.21).addingProduct(x, x))
    XCTAssertNotEqual(floats[2], floats[4])
    XCTAssertEqual(floats[5], Float(exp(Double(x))), accuracy: 3e-7)
    XCTAssertEqual(floats[6], 16.12)
    XCTAssertEqual(floats[7], 20 + 4 + 8)
    XCTAssertEqual(floats[8], x.nextUp)
    XCTAssertEqual(floats[9], 0.333251953125)
    // 1.0009765625 ^ 2 rounds to 1.001953125 in half precision, and that times 1.0009765625 to 1.0029296875.
    XCTAssertEqual(halves.contents().assumingMemoryBound(to: UInt16.self)[1], 0x3c03)
    // The product is 0.003936767578125; the sum is 1.0117... which lies between 0x3f81 and 0x3f82.
    XCTAssertEqual(brains.contents().assumingMemoryBound(to: UInt16.self)[1], 0x3f82)
  }

  func testThreadgroupsShareMemoryAndWait() throws {
    let source = """
      #include <metal_stdlib>
      using namespace metal;
      kernel void sums(device const uint *in [[buffer(0)]], device uint *out [[buffer(1)]], threadgroup uint *shared [[threadgroup(0)]],
          uint gid [[thread_position_in_grid]], uint lid [[thread_position_in_threadgroup]],
          uint group [[threadgroup_position_in_grid]], uint width [[threads_per_threadgroup]]) {
        threadgroup uint twice[256];
        shared[lid] = in[gid];
        threadgroup_barrier(mem_flags::mem_threadgroup);
        twice[lid] = 2 * shared[(lid + 1) % width];
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (lid == 0) { uint sum = 0; for (uint i = 0; i < width; i++) sum += twice[i]; out[group] = sum; }
      }
      """
    let count = 1000
    let input = rig.buffer(4 * count) { _ in 0 }
    let numbers = input.contents().assumingMemoryBound(to: UInt32.self)
    for i in 0..<count { numbers[i] = UInt32(i * i) }
    let output = rig.buffer(64) { _ in 0 }
    let pipeline = try rig.pipeline(source, "sums")
    XCTAssertEqual(pipeline.staticThreadgroupMemoryLength, 1024)
    try rig.run(pipeline, groups: .threads(count), group: 256) { encoder in
      encoder.setBuffer(input, offset: 0, index: 0)
      encoder.setBuffer(output, offset: 0, index: 1)
      encoder.setThreadgroupMemoryLength(1024, index: 0)
    }
    let sums = output.contents().assumingMemoryBound(to: UInt32.self)
    for group in 0..<4 {
      let range = (group * 256)..<min(count, group * 256 + 256)
      XCTAssertEqual(sums[group], UInt32(range.reduce(0) { $0 + 2 * $1 * $1 }))
    }
  }

  func testSimdgroupsExchange() throws {
    let source = """
      #include <metal_stdlib>
      using namespace metal;
      static uint helper(uint v) { return simd_sum(v); }
      kernel void lanes(device uint *out [[buffer(0)]], uint gid [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]],
          uint sg [[simdgroup_index_in_threadgroup]], uint n [[simdgroups_per_threadgroup]], uint width [[threads_per_simdgroup]]) {
        uint r = 0;
        if (lane < 4) r = helper(lane + 1);                        // four active lanes: 10
        else r = simd_max(lane);                                   // the others: their greatest
        uint x = simd_shuffle_xor(lane, ushort(1));
        uint d = simd_shuffle_down(lane, ushort(2));
        uint p = simd_prefix_exclusive_sum(1u);
        uint votes = popcount(uint(ulong(simd_ballot(lane % 3 == 0))));
        uint first = simd_broadcast_first(gid);
        out[gid] = r * 1000000 + x * 10000 + d * 100 + (p == lane) + 2 * (votes == 11) + 4 * (first == sg * width) + 8 * (n == 2);
      }
      """
    let output = rig.buffer(4 * 64) { _ in 0 }
    try rig.run(source, "lanes", groups: .threads(64), group: 64) { $0.setBuffer(output, offset: 0, index: 0) }
    let words = output.contents().assumingMemoryBound(to: UInt32.self)
    for i in 0..<64 {
      let lane = i % 32
      let down = lane + 2 < 32 ? lane + 2 : lane
      XCTAssertEqual(words[i], UInt32((lane < 4 ? 10 : 31) * 1_000_000 + (lane ^ 1) * 10000 + down * 100 + 15), "lane \(i)")
    }
  }

  func testGridsInThreeDimensions() throws {
    let source = """
      #include <metal_stdlib>
      using namespace metal;
      kernel void place(device atomic_uint *count [[buffer(0)]], device uint *out [[buffer(1)]], uint3 gid [[thread_position_in_grid]],
          ushort3 lid [[thread_position_in_threadgroup]], uint3 size [[threads_per_grid]], uint3 group [[threadgroup_position_in_grid]],
          uint3 whole [[dispatch_threads_per_threadgroup]], uint index [[thread_index_in_threadgroup]], uint3 mine [[threads_per_threadgroup]]) {
        atomic_fetch_add_explicit(count, 1, memory_order_relaxed);
        bool good = all(gid == group * whole + uint3(lid)) && index == lid.x + mine.x * (lid.y + mine.y * lid.z);
        out[gid.x + size.x * (gid.y + size.y * gid.z)] += good ? 1 : 100;
      }
      """
    let count = rig.buffer(16) { _ in 0 }
    let output = rig.buffer(4 * 7 * 5 * 3) { _ in 0 }
    try rig.run(source, "place", groups: .grid(MTLSize(width: 7, height: 5, depth: 3)), group3: MTLSize(width: 4, height: 2, depth: 2)) { encoder in
      encoder.setBuffer(count, offset: 0, index: 0)
      encoder.setBuffer(output, offset: 0, index: 1)
    }
    XCTAssertEqual(count.contents().load(as: UInt32.self), 105)
    let words = output.contents().assumingMemoryBound(to: UInt32.self)
    XCTAssertTrue((0..<105).allSatisfy { words[$0] == 1 })
  }

  func testThreadsThatNeverMeetEndWithATimeout() throws {
    let source = """
      #include <metal_stdlib>
      using namespace metal;
      kernel void uneven(device uint *out [[buffer(0)]], uint gid [[thread_position_in_grid]]) {
        if (gid < 3) return;
        threadgroup_barrier(mem_flags::mem_device);
        out[gid] = 1;
      }
      """
    let output = rig.buffer(256) { _ in 0 }
    let pipeline = try rig.pipeline(source, "uneven")
    let ended = try rig.commit(pipeline, groups: .threads(8), group3: MTLSize(width: 8, height: 1, depth: 1)) {
      $0.setBuffer(output, offset: 0, index: 0)
    }
    XCTAssertEqual(ended.status, .error)
    XCTAssertEqual((ended.error as NSError?)?.code, Int(MTLCommandBufferError.timeout.rawValue))
  }

  func testConcurrentLaunchesNeedBarriers() throws {
    let source = """
      kernel void one(device uint *a [[buffer(0)]]) { a[0] = a[0] * 2 + 1; }
      kernel void two(device uint *a [[buffer(0)]]) { a[0] = a[0] * 3; }
      """
    let first = try rig.pipeline(source, "one")
    let second = try rig.pipeline(source, "two")
    func run(_ type: MTLDispatchType, barrier: Bool) throws -> UInt32 {
      let buffer = rig.buffer(16) { _ in 0 }
      let commands = try XCTUnwrap(rig.queue.makeCommandBuffer())
      let encoder = try XCTUnwrap(commands.makeComputeCommandEncoder(dispatchType: type))
      encoder.setBuffer(buffer, offset: 0, index: 0)
      for pipeline in [first, second] {
        encoder.setComputePipelineState(pipeline)
        encoder.dispatchThreads(MTLSizeMake(1, 1, 1), threadsPerThreadgroup: MTLSizeMake(1, 1, 1))
        if barrier { encoder.memoryBarrier(scope: .buffers) }
      }
      encoder.endEncoding()
      commands.commit()
      commands.waitUntilCompleted()
      return buffer.contents().load(as: UInt32.self)
    }
    XCTAssertEqual(try run(.serial, barrier: false), 3)
    XCTAssertEqual(try run(.concurrent, barrier: true), 3)
    XCTAssertEqual(try run(.concurrent, barrier: false), 1)
  }
}
