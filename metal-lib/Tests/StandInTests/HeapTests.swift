import CStandIn
import Foundation
import XCTest

@testable import Metal

final class HeapTests: StandInTestCase {
  private func makeHeap(_ device: any MTLDevice, pages: Int, _ change: (MTLHeapDescriptor) -> Void = { _ in }) -> (any MTLHeap)? {
    let descriptor = MTLHeapDescriptor()
    descriptor.size = pages * 16384
    descriptor.storageMode = .shared
    change(descriptor)
    return device.makeHeap(descriptor: descriptor)
  }

  func testBuffersAreCutUntilItIsFull() throws {
    let device = try makeDevice()
    let heap = try XCTUnwrap(makeHeap(device, pages: 4))
    var buffers = (0..<4).map { _ in heap.makeBuffer(length: 16384) }
    XCTAssertTrue(buffers.allSatisfy { $0 != nil })
    XCTAssertEqual(Set(buffers.compactMap { $0?.heapOffset }), [0, 16384, 32768, 49152])
    XCTAssertEqual(heap.usedSize, heap.size)
    XCTAssertEqual(heap.maxAvailableSize(alignment: 256), 0)
    XCTAssertNil(heap.makeBuffer(length: 1))
    buffers[1] = nil
    XCTAssertEqual(heap.usedSize, 3 * 16384)
    XCTAssertEqual(heap.maxAvailableSize(alignment: 256), 16384)
    buffers[2] = nil
    XCTAssertEqual(heap.maxAvailableSize(alignment: 32768), 16384, "from 32768 on")
    XCTAssertEqual(heap.makeBuffer(length: 20000)?.heapOffset, 16384)
  }

  func testPartsAreUntrackedAndHoldTheHeap() throws {
    let device = try makeDevice()
    var heap = makeHeap(device, pages: 2)
    let buffer = try XCTUnwrap(heap?.makeBuffer(length: 100))
    XCTAssertEqual(buffer.hazardTrackingMode, .untracked)
    XCTAssertEqual(buffer.allocatedSize, 256)
    XCTAssertTrue(buffer.heap === heap)
    XCTAssertNotEqual(buffer.allBytes, [UInt8](repeating: 0, count: 100), "what it holds at first is not defined")
    XCTAssertEqual(device.currentAllocatedSize, 2 * 16384, "parts do not count twice")
    heap = nil
    buffer.fillBytes(3)
    XCTAssertEqual(liveCounts().heaps, 1)
  }

  func testTrackingIsTheDescriptors() throws {
    let device = try makeDevice()
    let heap = try XCTUnwrap(makeHeap(device, pages: 1) { $0.hazardTrackingMode = .tracked })
    XCTAssertEqual(heap.makeBuffer(length: 4)?.hazardTrackingMode, .tracked)
  }

  func testPlacement() throws {
    let device = try makeDevice()
    let heap = try XCTUnwrap(makeHeap(device, pages: 4) { $0.type = .placement })
    let first = try XCTUnwrap(heap.makeBuffer(length: 16384, options: [], offset: 16384))
    let second = try XCTUnwrap(heap.makeBuffer(length: 32768, options: [], offset: 16384))
    first.fillBytes(9)
    XCTAssertEqual(second.allBytes.first, 9, "both lie at the same bytes")
    XCTAssertEqual(second.gpuAddress, first.gpuAddress)
  }

  func testSizesThatAreRefused() throws {
    let device = try makeDevice()
    XCTAssertNil(makeHeap(device, pages: 0))
    XCTAssertNil(makeHeap(device, pages: device.maxBufferLength / 16384 + 1))
    fault(STANDIN_MAKE_BUFFER, code: 1)
    XCTAssertNil(makeHeap(device, pages: 1))
  }
}
