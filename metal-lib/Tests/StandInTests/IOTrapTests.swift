import CStandIn
import Foundation
import XCTest

@testable import Metal

/// Broken rules of MTLIO end the process, so each is broken in a process of its own: this test program, started again.
final class IOTrapTests: XCTestCase {
  private static let variable = "STANDIN_IO_TRAP"

  private static let rules: [(name: String, message: String, body: @Sendable (IOSetting) throws -> Void)] = [
    ("no command buffers", "maxCommandBufferCount is 0", { setting in
      let descriptor = MTLIOCommandQueueDescriptor()
      descriptor.maxCommandBufferCount = 0
      _ = try setting.device.makeIOCommandQueue(descriptor: descriptor)
    }),
    ("double commit", "committed twice", { setting in
      setting.commands.commit()
      setting.commands.commit()
    }),
    ("enqueue twice", "enqueued twice", { setting in
      setting.commands.enqueue()
      setting.commands.enqueue()
    }),
    ("encoding after commit", "encoded after commit", { setting in
      setting.commands.commit()
      try setting.load(offset: 0, size: 1)
    }),
    ("handler after commit", "handler is added after commit", { setting in
      setting.commands.commit()
      setting.commands.addCompletedHandler { _ in }
    }),
    ("waiting before commit", "was not committed", { $0.commands.waitUntilCompleted() }),
    ("target out of bounds", "of a buffer of 16384 bytes", { try $0.load(offset: 16380, size: 5) }),
    ("target before its start", "of a buffer of 16384 bytes", { try $0.load(offset: -1, size: 2) }),
    ("no bytes", "a load of 0 bytes", { try $0.load(offset: 0, size: 0) }),
    ("status into private memory", "the CPU cannot see", { setting in
      let hidden = try XCTUnwrap(setting.device.makeBuffer(length: 16, options: .storageModePrivate))
      setting.commands.copyStatus(buffer: hidden, offset: 0)
    }),
    ("status out of bounds", "offset 16380 of a buffer", { setting in
      setting.commands.copyStatus(buffer: setting.buffer, offset: 16380)
    }),
    ("another device's handle", "another device than the queue", { setting in
      let other = try IOSetting()
      setting.commands.load(setting.buffer, offset: 0, size: 1, sourceHandle: other.handle, sourceHandleOffset: 0)
    }),
    ("another device's buffer", "belongs to another device", { setting in
      let other = try IOSetting()
      setting.commands.load(other.buffer, offset: 0, size: 1, sourceHandle: setting.handle, sourceHandleOffset: 0)
    }),
    ("too many commands", "more than 8191 commands", { setting in
      for _ in 0..<8192 { try setting.load(offset: 0, size: 1) }
    }),
    ("debug groups", "popped that was not pushed", { $0.commands.popDebugGroup() }),
    ("unretained buffer freed", "object that was freed", { setting in
      let commands = setting.queue.makeCommandBufferWithUnretainedReferences()
      try commands.load(
        XCTUnwrap(setting.device.makeBuffer(length: 16, options: [])), offset: 0, size: 16,
        sourceHandle: setting.handle, sourceHandleOffset: 0)
      commands.commit()
      commands.waitUntilCompleted()
    }),
    ("small scratch memory", "a scratch buffer of 1 bytes, and 100 were asked for", { setting in
      final class Stingy: NSObject, MTLIOScratchBufferAllocator, MTLIOScratchBuffer {
        let buffer: any MTLBuffer
        init(_ buffer: any MTLBuffer) { self.buffer = buffer }
        func makeScratchBuffer(minimumSize: Int) -> (any MTLIOScratchBuffer)? { self }
      }
      let descriptor = MTLIOCommandQueueDescriptor()
      descriptor.scratchBufferAllocator = Stingy(try XCTUnwrap(setting.device.makeBuffer(length: 1, options: [])))
      let queue = try setting.device.makeIOCommandQueue(descriptor: descriptor)
      let commands = queue.makeCommandBuffer()
      let hidden = try XCTUnwrap(setting.device.makeBuffer(length: 100, options: .storageModePrivate))
      commands.load(hidden, offset: 0, size: 100, sourceHandle: setting.handle, sourceHandleOffset: 0)
      commands.commit()
      commands.waitUntilCompleted()
    }),
  ]

  func testEachBrokenRuleEndsTheProcess() throws {
    for rule in Self.rules {
      let (signal, text) = try runAgain("IOTrapTests/testBreaksTheRuleThatItWasStartedFor", Self.variable, rule.name)
      XCTAssertEqual(signal, SIGABRT, "\(rule.name): \(text)")
      XCTAssertTrue(text.contains("Metal stand-in: MTLIO: "), "\(rule.name): \(text)")
      XCTAssertTrue(text.contains(rule.message), "\(rule.name): \(text)")
    }
  }

  /// Does nothing but in the process that `runAgain` starts.
  func testBreaksTheRuleThatItWasStartedFor() throws {
    guard let name = ProcessInfo.processInfo.environment[Self.variable] else { return }
    let rule = try XCTUnwrap(Self.rules.first { $0.name == name })
    try rule.body(IOSetting())
  }
}

/// A device with a queue, a command buffer, a buffer of 16,384 bytes, and a file of as many.
private struct IOSetting {
  let device: any MTLDevice
  let queue: any MTLIOCommandQueue
  let commands: any MTLIOCommandBuffer
  let buffer: any MTLBuffer
  let handle: any MTLIOFileHandle

  init() throws {
    device = try XCTUnwrap(MTLCreateSystemDefaultDevice())
    queue = try device.makeIOCommandQueue(descriptor: MTLIOCommandQueueDescriptor())
    commands = queue.makeCommandBuffer()
    buffer = try XCTUnwrap(device.makeBuffer(length: 16384, options: []))
    let url = FileManager.default.temporaryDirectory.appendingPathComponent("headrace-trap-\(UUID().uuidString)")
    try Data(count: 16384).write(to: url)
    handle = try device.makeIOFileHandle(url: url)
    try FileManager.default.removeItem(at: url)
  }

  func load(offset: Int, size: Int) throws {
    commands.load(buffer, offset: offset, size: size, sourceHandle: handle, sourceHandleOffset: 0)
  }
}
