import CHeadrace
import XCTest

@testable import HeadraceMetal

final class HandleTests: XCTestCase {
  /// A resource that is nothing else.
  final class Plain: Resource, @unchecked Sendable {
    override class var kind: Kind { .heap }
    init() { super.init(kind: .heap, device: nil) }
  }

  func testAHandleNamesKindGenerationAndIndex() throws {
    let table = HandleTable()
    let handle = try table.insert(Plain(), device: nil)
    XCTAssertEqual(handle >> 28, Kind.heap.rawValue)
    XCTAssertEqual(handle & 0xffff, 0)
    XCTAssertNotEqual(handle, 0)
    XCTAssert(try table.find(handle, as: Plain.self) === table.find(handle))
  }

  func testAClosedHandleIsToldFromItsSuccessors() throws {
    let table = HandleTable()
    let first = try table.insert(Plain(), device: nil)
    _ = try table.remove(first)
    var seen: Set<hr_handle> = [first]
    // Long enough for each of the resting indices to be used several times.
    for _ in 0..<10_000 {
      let next = try table.insert(Plain(), device: nil)
      XCTAssert(seen.insert(next).inserted)
      XCTAssertThrowsError(try table.find(first)) { XCTAssertEqual(($0 as? Failure)?.status, Status.closed) }
      _ = try table.remove(next)
    }
  }

  func testGenerationsWrapOnlyAfterAllAreUsed() throws {
    let table = HandleTable()
    // All indices but one stay in use, so that one is taken again and again.
    for _ in 1..<HandleTable.capacity { _ = try table.insert(Plain(), device: nil) }
    var seen: [hr_handle] = []
    for _ in 0..<4097 {
      let handle = try table.insert(Plain(), device: nil)
      seen.append(handle)
      XCTAssertEqual(try table.remove(handle).count, 1)
    }
    XCTAssertEqual(Set(seen).count, 4096)
    XCTAssertEqual(seen[4096], seen[0])
  }

  func testAFullTableIsAnErrorAndRoomComesBack() throws {
    let table = HandleTable()
    var all: [hr_handle] = []
    for _ in 0..<HandleTable.capacity { all.append(try table.insert(Plain(), device: nil)) }
    XCTAssertThrowsError(try table.insert(Plain(), device: nil)) { error in
      XCTAssertEqual((error as? Failure)?.status, Status.outOfMemory)
      XCTAssert((error as? Failure)?.message.contains("65536") ?? false)
    }
    _ = try table.remove(all[777])
    XCTAssertEqual(try table.insert(Plain(), device: nil) & 0xffff, 777)
  }

  func testWhatNeverWasAHandle() throws {
    let table = HandleTable()
    let handle = try table.insert(Plain(), device: nil)
    for bad: hr_handle in [0, 1, 0xffff_ffff, 0xa000_0000, handle + 1, handle ^ (6 << 28)] {
      XCTAssertThrowsError(try table.find(bad)) { XCTAssertEqual(($0 as? Failure)?.status, Status.invalid) }
    }
  }

  func testTheWrongKindIsNamed() throws {
    let rig = try Rig()
    defer { rig.close() }
    let event = try rig.event()
    var info = hr_buffer_info()
    let text = expect(Status.invalid) { try call { hr_buffer_info_get(event, &info, $0) } }
    XCTAssertEqual(text, "handle 0x\(String(event, radix: 16)) is an event, and a buffer is needed")
    expect(Status.invalid) { try call { hr_event_signal(rig.device, 1, $0) } }
    expect(Status.invalid) { try call { hr_buffer_info_get(0, &info, $0) } }
  }

  func testClosingTwiceIsAnError() throws {
    let rig = try Rig()
    let event = try rig.event()
    XCTAssertEqual(rig.openHandles, 2)
    XCTAssertEqual(hr_close(event), 0)
    XCTAssertEqual(hr_close(event), Status.closed)
    XCTAssertEqual(rig.openHandles, 1)
    rig.close()
    XCTAssertEqual(hr_close(rig.device), Status.closed)
    XCTAssertEqual(hr_close(rig.queue), Status.closed)
  }

  func testAClosedDeviceClosesAllAndMakesNothing() throws {
    let folder = Folder()
    let rig = try Rig()
    let file = try rig.file(try folder.file("a", 100))
    let buffer = try rig.buffer(100)
    let event = try rig.event()
    let device = rig.device
    rig.close()
    var handle: hr_handle = 0
    var length: UInt64 = 0
    var info = hr_device_info()
    let calls: [(UnsafeMutablePointer<hr_error>) -> hr_status] = [
      { hr_device_info_get(device, &info, $0) },
      { hr_file_open(device, folder.path + "/a", 0, HR_CODEC_NONE, &handle, &length, $0) },
      { hr_file_length(file, &length, $0) },
      { hr_file_map(file, 0, 10, &handle, $0) },
      { hr_buffer_create(device, 1, 0, &handle, $0) },
      { hr_buffer_check(buffer, $0) },
      { hr_event_create(device, &handle, $0) },
      { hr_event_signal(event, 1, $0) },
      { hr_queue_create(device, &handle, $0) },
      { _ in hr_device_ping(device) },
      { _ in hr_device_open_handles(device) },
      { _ in hr_queue_cancel(rig.queue, 1, Status.cancelled) },
    ]
    for one in calls { expect(Status.closed) { try call(one) } }
  }
}
