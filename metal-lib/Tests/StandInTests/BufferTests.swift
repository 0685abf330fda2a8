import CStandIn
import Foundation
import XCTest

@testable import Metal

final class BufferTests: StandInTestCase {
  func testMemoryIsZeroedAndAligned() throws {
    let device = try makeDevice()
    for length in [1, 100, 16384, 3 << 20] {
      let buffer = try XCTUnwrap(device.makeBuffer(length: length))
      XCTAssertEqual(buffer.length, length)
      XCTAssertEqual(Int(bitPattern: buffer.contents()) % 16384, 0)
      XCTAssertEqual(buffer.gpuAddress, UInt64(UInt(bitPattern: buffer.contents())))
      XCTAssertTrue(buffer.allBytes.allSatisfy { $0 == 0 })
      XCTAssertEqual(buffer.hazardTrackingMode, .tracked)
    }
  }

  func testLengthsThatAreRefused() throws {
    configure { $0.max_buffer_length = 1 << 20 }
    let device = try makeDevice()
    XCTAssertEqual(device.maxBufferLength, 1 << 20)
    XCTAssertNil(device.makeBuffer(length: 0))
    XCTAssertNil(device.makeBuffer(length: (1 << 20) + 1))
    XCTAssertNotNil(device.makeBuffer(length: 1 << 20))
  }

  func testBytesAreCopied() throws {
    let device = try makeDevice()
    let buffer = try XCTUnwrap(device.makeBuffer(bytes: [1, 2, 3] as [UInt8], length: 3, options: []))
    XCTAssertEqual(buffer.allBytes, [1, 2, 3])
  }

  func testAllocatedSizeGoesUpAndDown() throws {
    let device = try makeDevice()
    XCTAssertEqual(device.currentAllocatedSize, 0)
    var buffer = device.makeBuffer(length: 20000, options: .storageModePrivate)
    XCTAssertEqual(buffer?.allocatedSize, 32768)
    XCTAssertEqual(device.currentAllocatedSize, 32768)
    buffer = nil
    XCTAssertEqual(device.currentAllocatedSize, 0)
  }

  func testFaultGivesNilOnce() throws {
    let device = try makeDevice()
    fault(STANDIN_MAKE_BUFFER, nth: 2, code: 1)
    XCTAssertNotNil(device.makeBuffer(length: 4))
    XCTAssertNil(device.makeBuffer(length: 4))
    XCTAssertNotNil(device.makeBuffer(length: 4))
    XCTAssertEqual(standin_calls(UInt32(STANDIN_MAKE_BUFFER)), 3)
  }

  // MARK: No copy

  func testNoCopyShowsTheMemoryAndFreesItOnce() throws {
    let device = try makeDevice()
    let memory = try mapAligned(4 * 16384)
    memory.storeBytes(of: 7, toByteOffset: 16384, as: UInt8.self)
    let calls = Guarded([Int]())
    let start = UInt(bitPattern: memory + 16384)
    var buffer = device.makeBuffer(
      bytesNoCopy: memory + 16384, length: 2 * 16384, options: [],
      deallocator: { pointer, length in
        calls.withLock { $0.append(length) }
        XCTAssertEqual(UInt(bitPattern: pointer), start)
      })
    XCTAssertEqual(buffer?.contents(), memory + 16384)
    XCTAssertEqual(buffer?.allBytes.first, 7)
    XCTAssertEqual(device.currentAllocatedSize, 2 * 16384)
    XCTAssertEqual(calls.withLock { $0 }, [])
    buffer = nil
    XCTAssertEqual(calls.withLock { $0 }, [2 * 16384])
    munmap(memory, 4 * 16384)
  }

  func testNoCopyRefusesWhatIsNoWholePage() throws {
    let device = try makeDevice()
    let memory = try mapAligned(4 * 16384)
    defer { munmap(memory, 4 * 16384) }
    XCTAssertNil(device.makeBuffer(bytesNoCopy: memory + 4096, length: 16384), "pages of 4 KiB are not enough")
    XCTAssertNil(device.makeBuffer(bytesNoCopy: memory, length: 16384 + 4096))
    XCTAssertNil(device.makeBuffer(bytesNoCopy: memory, length: 0))
    XCTAssertNil(device.makeBuffer(bytesNoCopy: memory, length: 16384, options: .storageModePrivate))
    XCTAssertNotNil(device.makeBuffer(bytesNoCopy: memory, length: 4 * 16384))
  }

  func testNoCopyRefusesMoreThanOneMapping() throws {
    let device = try makeDevice()
    let memory = try mapAligned(6 * 16384)
    defer { munmap(memory, 6 * 16384) }
    // Other rights make another mapping of pages 2 and 3, and none at all of page 5.
    XCTAssertEqual(mprotect(memory + 2 * 16384, 2 * 16384, PROT_READ), 0)
    XCTAssertEqual(munmap(memory + 5 * 16384, 16384), 0)
    XCTAssertNotNil(device.makeBuffer(bytesNoCopy: memory, length: 2 * 16384))
    XCTAssertNotNil(device.makeBuffer(bytesNoCopy: memory + 2 * 16384, length: 2 * 16384))
    XCTAssertNil(device.makeBuffer(bytesNoCopy: memory, length: 4 * 16384), "two mappings")
    XCTAssertNil(device.makeBuffer(bytesNoCopy: memory + 4 * 16384, length: 2 * 16384), "a hole")
    XCTAssertEqual(mprotect(memory + 4 * 16384, 16384, PROT_NONE), 0)
    XCTAssertNil(device.makeBuffer(bytesNoCopy: memory + 4 * 16384, length: 16384), "nothing to read")
  }

  /// The end of a pretended page may be another mapping, where a file ends inside of it.
  func testNoCopyTakesATailSmallerThanAPage() throws {
    let device = try makeDevice()
    let memory = try mapAligned(2 * 16384)
    defer { munmap(memory, 2 * 16384) }
    XCTAssertEqual(mprotect(memory + 16384 + 8192, 8192, PROT_READ), 0)
    XCTAssertNotNil(device.makeBuffer(bytesNoCopy: memory, length: 2 * 16384))
  }

  private func mapAligned(_ length: Int) throws -> UnsafeMutableRawPointer {
    let total = length + 16384
    let start = try XCTUnwrap(mmap(nil, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
    XCTAssertNotEqual(start, MAP_FAILED)
    let lead = roundedUp(Int(bitPattern: start), to: 16384) - Int(bitPattern: start)
    if lead > 0 { munmap(start, lead) }
    munmap(start + lead + length, 16384 - lead)
    return start + lead
  }
}
