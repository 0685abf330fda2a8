import CHeadrace
import Foundation
import XCTest

@testable import HeadraceMetal

/// The header that makes one kernel text of Metal, CUDA and C++.
final class ComputePortableTests: XCTestCase {
  private func portable(_ text: String) throws -> String {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("../../..").standardized
    return try String(contentsOf: root.appendingPathComponent("src/kernels/portable.h"), encoding: .utf8) + text
  }

  func testErrorsCountLinesOfTheText() throws {
    let rig = try Rig()
    defer { rig.close() }
    let source = try portable("HR_KERNEL(k, HR_OUT(0, uint32_t, a)) {\n  a[0] = nowhere;\n}\n")
    let text = expect(Status.compileFailed) { _ = try rig.library(source) }
    XCTAssertTrue(text.contains("kernel:2:"), text)
  }

  func testGroupsHave256Threads() throws {
    let rig = try Rig()
    defer { rig.close() }
    let source = try portable(
      """
      HR_KERNEL(places, HR_OUT(0, uint32_t, a)) {
        if (hr_thread < hr_threads) a[hr_thread] = hr_group * 1000000 + hr_local * 1000 + hr_group_threads;
      }
      """)
    let buffer = try rig.buffer(4 * 600)
    let kernel = try rig.pipeline(rig.library(source), "places")
    XCTAssertEqual(kernel.info.max_threads, 256)
    XCTAssertEqual(try rig.launch([Launch(kernel.handle, [0], threads: 600)], [buffer], ticket: 1).status, 0)
    let words = try rig.words(buffer)
    for i in 0..<600 { XCTAssertEqual(words[i], UInt32(i / 256 * 1_000_000 + i % 256 * 1000 + min(256, 600 - i / 256 * 256))) }
  }

  func testSimdSumsAreATree() throws {
    let rig = try Rig()
    defer { rig.close() }
    let source = try portable(
      """
      HR_FN float add_all(float value, uint32_t local, uint32_t threads) {
        return hr_simd_sum_of(value, local % HR_SIMD_WIDTH, threads - local / HR_SIMD_WIDTH * HR_SIMD_WIDTH);
      }
      HR_KERNEL(sums, HR_IN(0, float, in), HR_OUT(1, float, out)) {
        float sum = hr_simd_sum(in[hr_thread]);
        float again = add_all(in[hr_thread], hr_local, hr_group_threads);
        out[hr_thread] = sum == again ? sum : -1.0f;
      }
      """)
    let count = 256 + 32 + 13
    let input = try rig.buffer(4 * count)
    let output = try rig.buffer(4 * count)
    let values = UnsafeMutableRawBufferPointer(try rig.bytes(input)).bindMemory(to: Float.self)
    for i in 0..<count { values[i] = Float(i * i % 97) * 1.1 + 0.01 }
    let kernel = try rig.kernel(source, "sums")
    XCTAssertEqual(try rig.launch([Launch(kernel, [0, 1], threads: count)], [input, output], ticket: 1).status, 0)
    let sums = UnsafeMutableRawBufferPointer(try rig.bytes(output)).bindMemory(to: Float.self)
    for first in stride(from: 0, to: count, by: 32) {
      var tree = (0..<32).map { first + $0 < count ? values[first + $0] : 0 }
      for by in [16, 8, 4, 2, 1] { for i in 0..<by { tree[i] += tree[i + by] } }
      for i in first..<min(count, first + 32) { XCTAssertEqual(sums[i], tree[0], "thread \(i)") }
    }
  }

  func testHalfAndBfloatOfAllBits() throws {
    let rig = try Rig()
    defer { rig.close() }
    let source = try portable(
      """
      HR_KERNEL(convert, HR_IN(0, hr_half, h), HR_IN(1, hr_bfloat, b), HR_IN(2, float, f), HR_OUT(3, float, hf), HR_OUT(4, float, bf),
                HR_OUT(5, hr_half, fh), HR_OUT(6, hr_bfloat, fb)) {
        if (hr_thread >= hr_threads) return;
        hf[hr_thread] = hr_float(h[hr_thread]);
        bf[hr_thread] = hr_float(b[hr_thread]);
        fh[hr_thread] = hr_to_half(f[hr_thread]);
        fb[hr_thread] = hr_to_bfloat(f[hr_thread]);
      }
      """)
    let count = 65536
    let shorts = try (0..<4).map { _ in try rig.buffer(2 * count) }
    let floats = try (0..<3).map { _ in try rig.buffer(4 * count) }
    func words16(_ buffer: hr_handle) throws -> UnsafeMutableBufferPointer<UInt16> { UnsafeMutableRawBufferPointer(try rig.bytes(buffer)).bindMemory(to: UInt16.self) }
    let (h, b) = (try words16(shorts[0]), try words16(shorts[1]))
    let f = try rig.words(floats[0])
    for i in 0..<count {
      h[i] = UInt16(i)
      b[i] = UInt16(i)
      // Around every half: it, its neighbours as floats, and the middles between halves.
      let near = Float(Float16(bitPattern: UInt16(i & 0xfffe))).bitPattern
      f[i] = [near, near &+ 0x1000, near &+ 0xfff, near &+ 0x1001, UInt32(i) &* 2_654_435_761][i % 5]
    }
    let kernel = try rig.kernel(source, "convert")
    let objects = [shorts[0], shorts[1], floats[0], floats[1], floats[2], shorts[2], shorts[3]]
    XCTAssertEqual(try rig.launch([Launch(kernel, Array(0..<7), threads: count)], objects, ticket: 1).status, 0)
    let (hf, bf, fh, fb) = (try rig.words(floats[1]), try rig.words(floats[2]), try words16(shorts[2]), try words16(shorts[3]))
    for i in 0..<count {
      let half = Float16(bitPattern: UInt16(i))
      XCTAssertTrue(half.isNaN ? Float(bitPattern: hf[i]).isNaN : hf[i] == Float(half).bitPattern, "half \(i)")
      XCTAssertEqual(bf[i], UInt32(i) << 16)
      let value = Float(bitPattern: f[i])
      let rounded = Float16(bitPattern: fh[i])
      XCTAssertTrue(value.isNaN ? rounded.isNaN : fh[i] == Float16(value).bitPattern, "to half \(value)")
      let brain = Float(bitPattern: UInt32(fb[i]) << 16)
      if value.isNaN { XCTAssertTrue(brain.isNaN) } else if brain.isFinite {
        let other = Float(bitPattern: (UInt32(fb[i]) &+ 1) << 16)
        let below = Float(bitPattern: (UInt32(fb[i]) &- 1) << 16)
        for neighbour in [other, below] where neighbour.isFinite && (neighbour < 0) == (value < 0) {
          let (mine, its) = (abs(Double(brain) - Double(value)), abs(Double(neighbour) - Double(value)))
          XCTAssertTrue(mine < its || (mine == its && fb[i] & 1 == 0), "to bfloat \(value)")
        }
      }
    }
  }
}
