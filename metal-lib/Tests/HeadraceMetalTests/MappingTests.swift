import CHeadrace
import XCTest

@testable import HeadraceMetal

#if canImport(CStandIn)
  import CStandIn
#endif

final class MappingTests: XCTestCase {
  let folder = Folder()

  func testAnyOffsetAndLengthShowsTheFilesBytes() throws {
    let rig = try Rig()
    defer { rig.close() }
    let page = Int(hr_page_size())
    let expected = pattern(4 * page + 100)
    let file = try rig.file(try folder.file("a", expected.count))
    for length in [1, page - 1, page, page + 1] {
      for offset in [0, 1, 8, page - 1, page, page + 1, 3 * page + 99] {
        let mapping = try rig.map(file, offset, length)
        let info = try rig.info(mapping)
        XCTAssertEqual(Int(info.host_address) % page, offset % page)
        XCTAssertEqual(Int(info.gpu_address) % page, offset % page)
        XCTAssertEqual(Array(try rig.bytes(mapping)), Array(expected[offset..<offset + length]))
        XCTAssertEqual(hr_close(mapping), 0)
      }
    }
  }

  func testOutsideTheFileAndOtherReasons() throws {
    let rig = try Rig()
    defer { rig.close() }
    let file = try rig.file(try folder.file("b", 100))
    expect(Status.outOfRange) { _ = try rig.map(file, 50, 51) }
    expect(Status.outOfRange) { _ = try rig.map(file, 101, 0) }
    expect(Status.declined) { _ = try rig.map(file, 50, 0) }
    let handle = try rig.map(file, 0, 100)
    XCTAssertEqual(hr_close(file), 0)
    XCTAssertEqual(Array(try rig.bytes(handle)), pattern(100))
  }

  func testTheBudgetBoundsWhatIsMappedAtOnce() throws {
    var options = hr_device_options()
    options.map_budget = 3 * 16384
    let rig = try Rig(options)
    defer { rig.close() }
    let file = try rig.file(try folder.file("c", 100_000))
    let first = try rig.map(file, 0, 2 * 16384)
    let text = expect(Status.declined) { _ = try rig.map(file, 16383, 2) }
    XCTAssert(text.contains("budget of 49152") && text.contains("32768"), text)
    let second = try rig.map(file, 5, 10)
    XCTAssertEqual(hr_close(first), 0)
    XCTAssertEqual(hr_close(second), 0)
    XCTAssertEqual(hr_close(try rig.map(file, 0, 3 * 16384)), 0)
  }

  func testAShrunkFileIsAnErrorAndNoFault() throws {
    var options = hr_device_options()
    options.inline_copy_bytes = 1
    let rig = try Rig(options)
    defer { rig.close() }
    let file = try rig.file(try folder.file("shrinks", 50_000))
    let mapping = try rig.map(file, 0, 50_000)
    let buffer = try rig.buffer(50_000)
    let event = try rig.event()
    let copy = request(HR_COPY, 0, 0, 1, 0, 50_000)
    let (ticket, _) = try rig.submit([request(HR_WAIT, 2, 0, -1, 0, 1), copy], [mapping, buffer, event])
    folder.truncate("shrinks", to: 10_000)
    try call { hr_event_signal(event, 1, $0) }
    XCTAssertEqual(try rig.end(of: ticket).status, Double(Status.fileChanged))
    XCTAssertEqual(
      try rig.failure(ticket), "request 1: has 10000 bytes now and had 50000 when it was opened; open it again")
    expect(Status.fileChanged) { _ = try rig.submit([copy], [mapping, buffer]) }
    expect(Status.fileChanged) { try call { hr_buffer_check(mapping, $0) } }
    expect(Status.fileChanged) { _ = try rig.map(file, 0, 50_000) }
    XCTAssertEqual(hr_buffer_advise(mapping, UInt32(HR_WILL_NEED), 0, 50_000), 0)
    XCTAssertEqual(hr_close(file), 0)
    expect(Status.fileChanged) { try call { hr_buffer_check(mapping, $0) } }
  }

  func testHintsOfAnyRangeAreHarmless() throws {
    let rig = try Rig()
    defer { rig.close() }
    let expected = pattern(100_000)
    let file = try rig.file(try folder.file("d", 100_000))
    let mapping = try rig.map(file, 10, 90_000)
    let own = try rig.buffer(50_000)
    _ = try rig.bytes(own).update(repeating: 7)
    for advice in [HR_SEQUENTIAL, HR_RANDOM, HR_WILL_NEED, HR_DONT_NEED] {
      for (offset, length) in [(5, 80_000), (0, 1 << 62), (200_000, 5), (0, 0), (89_999, 1), (0, 90_000)] {
        for buffer in [mapping, own] {
          XCTAssertEqual(hr_buffer_advise(buffer, UInt32(advice), UInt64(offset), UInt64(length)), 0)
        }
      }
      XCTAssertEqual(hr_buffer_advise(mapping, UInt32(advice), .max, .max), 0)
    }
    XCTAssertEqual(hr_buffer_advise(mapping, 4, 0, 1), Status.invalid)
    XCTAssertEqual(Array(try rig.bytes(mapping)), Array(expected[10..<90_010]))
    XCTAssert(try rig.bytes(own).allSatisfy { $0 == 7 })
  }

  func testPagesAreBroughtInBeforeTheGPU() throws {
    let rig = try Rig()
    defer { rig.close() }
    let length = 9 << 20
    let file = try rig.file(try folder.file("e", length))
    let mapping = try handles.find(try rig.map(file, 100, length - 100), as: Buffer.self)
    let pages = try XCTUnwrap(mapping.mapping)
    mapping.prepareForGPU()
    XCTAssertEqual(hr_is_resident(pages.pages, pages.usedLength), 1)
    // After the file has shrunk it comes back without a fault.
    folder.truncate("e", to: 5000)
    mapping.prepareForGPU()
  }

  #if canImport(CStandIn)
    func testFailuresOfTheSystemDecline() throws {
      let rig = try Rig()
      defer {
        setFaults([])
        rig.close()
      }
      let file = try rig.file(try folder.file("f", 100))
      setFaults([fault(STANDIN_MMAP, code: ENODEV), fault(STANDIN_MAKE_BUFFER, code: 1)])
      let text = expect(Status.declined) { _ = try rig.map(file, 0, 100) }
      XCTAssert(text.contains("ENODEV"), text)
      expect(Status.declined) { _ = try rig.map(file, 0, 100) }
      XCTAssertEqual(hr_close(try rig.map(file, 0, 100)), 0)
      XCTAssertEqual(try handles.find(rig.device, as: Device.self).mappings.bytesMapped, 0)
    }

    func testMemoryOfItsOwnDeclines() throws {
      var config = standin_config()
      config.not_unified = 1
      standin_configure(&config)
      defer {
        var plain = standin_config()
        standin_configure(&plain)
      }
      let rig = try Rig()
      defer { rig.close() }
      var info = hr_device_info()
      try call { hr_device_info_get(rig.device, &info, $0) }
      XCTAssertEqual(Int(info.flags) & HR_DEVICE_UNIFIED_MEMORY, 0)
      let file = try rig.file(try folder.file("g", 100))
      expect(Status.declined) { _ = try rig.map(file, 0, 100) }
    }

    func testTooLargeForABuffer() throws {
      var config = standin_config()
      config.max_buffer_length = 4 * 16384
      standin_configure(&config)
      defer {
        var plain = standin_config()
        standin_configure(&plain)
      }
      let rig = try Rig()
      defer { rig.close() }
      let file = try rig.file(try folder.file("h", 100_000))
      expect(Status.declined) { _ = try rig.map(file, 1, 4 * 16384) }
      XCTAssertEqual(hr_close(try rig.map(file, 0, 4 * 16384)), 0)
      expect(Status.outOfRange) { _ = try rig.buffer(4 * 16384 + 1) }
      XCTAssertEqual(hr_close(try rig.buffer(4 * 16384)), 0)
    }
  #endif
}
