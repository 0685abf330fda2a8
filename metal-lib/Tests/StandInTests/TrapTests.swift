import CStandIn
import Foundation
import XCTest

@testable import Metal

/// Broken rules end the process, so each is broken in a process of its own: this test program, started again.
final class TrapTests: XCTestCase {
  private static let variable = "STANDIN_TRAP"

  /// What is done, and a part of what the stand-in says to it.
  private static let rules: [(name: String, message: String, body: @Sendable (Setting) throws -> Void)] = [
    ("contents of private", "contents() of a private buffer", { _ = try $0.buffer(.storageModePrivate).contents() }),
    ("double commit", "already committed", { setting in
      setting.commands.commit()
      setting.commands.commit()
    }),
    ("commit with an open encoder", "while an encoder is open", { setting in
      let encoder = setting.commands.makeBlitCommandEncoder()
      setting.commands.commit()
      encoder?.endEncoding()
    }),
    ("two encoders", "while an encoder is open", { setting in
      let encoder = setting.commands.makeBlitCommandEncoder()
      _ = setting.commands.makeBlitCommandEncoder()
      encoder?.endEncoding()
    }),
    ("encoder released", "without endEncoding", { _ = $0.commands.makeBlitCommandEncoder() }),
    ("encoding after end", "after endEncoding", { setting in
      let encoder = setting.commands.makeBlitCommandEncoder()
      encoder?.endEncoding()
      encoder?.fill(buffer: try setting.buffer(), range: 0..<4, value: 1)
    }),
    ("end twice", "endEncoding after endEncoding", { setting in
      let encoder = setting.commands.makeBlitCommandEncoder()
      encoder?.endEncoding()
      encoder?.endEncoding()
    }),
    ("encoding after commit", "after commit", { setting in
      setting.commands.commit()
      _ = setting.commands.makeBlitCommandEncoder()
    }),
    ("completed handler after commit", "addCompletedHandler after commit", { setting in
      setting.commands.commit()
      setting.commands.addCompletedHandler { _ in }
    }),
    ("scheduled handler after commit", "addScheduledHandler after commit", { setting in
      setting.commands.commit()
      setting.commands.addScheduledHandler { _ in }
    }),
    ("waiting before commit", "before commit", { $0.commands.waitUntilCompleted() }),
    ("copy out of bounds", "outside the buffer's 16", { setting in
      try setting.blit { $0.copy(from: try setting.buffer(), sourceOffset: 8, to: try setting.buffer(), destinationOffset: 0, size: 12) }
    }),
    ("copy into bounds", "destination bytes -4", { setting in
      try setting.blit { $0.copy(from: try setting.buffer(), sourceOffset: 0, to: try setting.buffer(), destinationOffset: -4, size: 4) }
    }),
    ("copy unaligned", "multiples of 4", { setting in
      try setting.blit { $0.copy(from: try setting.buffer(), sourceOffset: 2, to: try setting.buffer(), destinationOffset: 0, size: 4) }
    }),
    ("copy overlapping", "overlap over 8 bytes", { setting in
      let buffer = try setting.buffer()
      try setting.blit { $0.copy(from: buffer, sourceOffset: 0, to: buffer, destinationOffset: 4, size: 8) }
    }),
    ("fill out of bounds", "outside the buffer's 16", { setting in
      try setting.blit { $0.fill(buffer: try setting.buffer(), range: 8..<20, value: 0) }
    }),
    ("another device's buffer", "belongs to another device", { setting in
      let other = try Setting()
      try setting.blit { $0.fill(buffer: try other.buffer(), range: 0..<4, value: 0) }
    }),
    ("another device's event", "belongs to another device", { setting in
      if let event = try Setting().device.makeEvent() { setting.commands.encodeSignalEvent(event, value: 1) }
    }),
    ("unretained buffer freed", "unretained references", { setting in
      let event = try XCTUnwrap(setting.device.makeSharedEvent())
      let commands = try XCTUnwrap(setting.queue.makeCommandBufferWithUnretainedReferences())
      commands.encodeWaitForEvent(event, value: 1)
      try setting.blit(commands) { $0.fill(buffer: try setting.buffer(), range: 0..<4, value: 1) }
      commands.commit()
      event.signaledValue = 1
      commands.waitUntilCompleted()
    }),
    ("unretained buffer freed late", "unretained references", { setting in
      let event = try XCTUnwrap(setting.device.makeSharedEvent())
      let commands = try XCTUnwrap(setting.queue.makeCommandBufferWithUnretainedReferences())
      var buffer: (any MTLBuffer)? = try setting.buffer()
      try setting.blit(commands) { $0.fill(buffer: try XCTUnwrap(buffer), range: 0..<4, value: 1) }
      commands.encodeSignalEvent(event, value: 1)
      commands.encodeWaitForEvent(event, value: 2)
      commands.commit()
      XCTAssertTrue(within(5) { event.signaledValue == 1 })
      buffer = nil
      event.signaledValue = 2
      commands.waitUntilCompleted()
    }),
    ("33 residency sets", "at most 32 sets", { setting in
      for _ in 0..<33 {
        setting.queue.addResidencySet(try setting.device.makeResidencySet(descriptor: MTLResidencySetDescriptor()))
      }
    }),
    ("residency set on two threads", "that another thread is using", { setting in
      let set = UncheckedBox(try setting.device.makeResidencySet(descriptor: MTLResidencySetDescriptor()))
      let threads = (0..<4).map { _ in TestThread { for _ in 0..<200_000 { set.value.commit() } } }
      threads.forEach { $0.join() }
    }),
    ("heap storage", "must have the heap's storage", { setting in
      let descriptor = MTLHeapDescriptor()
      descriptor.size = 16384
      _ = setting.device.makeHeap(descriptor: descriptor)?.makeBuffer(length: 4, options: .storageModeShared)
    }),
    ("placement in an automatic heap", "no placement heap", { setting in
      let descriptor = MTLHeapDescriptor()
      descriptor.size = 16384
      _ = setting.device.makeHeap(descriptor: descriptor)?.makeBuffer(length: 4, options: .storageModePrivate, offset: 0)
    }),
    ("placement outside", "end after the heap's 16384", { setting in
      let descriptor = MTLHeapDescriptor()
      descriptor.size = 16384
      descriptor.type = .placement
      _ = setting.device.makeHeap(descriptor: descriptor)?.makeBuffer(length: 16384, options: .storageModePrivate, offset: 16384)
    }),
    ("a queue of none", "must be above 0", { _ = $0.device.makeCommandQueue(maxCommandBufferCount: 0) }),
  ]

  func testEachBrokenRuleEndsTheProcess() throws {
    for rule in Self.rules {
      let (signal, text) = try runAgain("TrapTests/testBreaksTheRuleThatItWasStartedFor", Self.variable, rule.name)
      XCTAssertEqual(signal, SIGABRT, "\(rule.name): \(text)")
      XCTAssertTrue(text.contains("Metal stand-in: "), "\(rule.name): \(text)")
      XCTAssertTrue(text.contains(rule.message), "\(rule.name): \(text)")
    }
  }

  /// Does nothing but in the process that `runAgain` starts.
  func testBreaksTheRuleThatItWasStartedFor() throws {
    guard let name = ProcessInfo.processInfo.environment[Self.variable] else { return }
    let rule = try XCTUnwrap(Self.rules.first { $0.name == name })
    try rule.body(Setting())
  }
}

/// A device with a queue and a command buffer.
private struct Setting {
  let device: any MTLDevice
  let queue: any MTLCommandQueue
  let commands: any MTLCommandBuffer

  init() throws {
    device = try XCTUnwrap(MTLCreateSystemDefaultDevice())
    queue = try XCTUnwrap(device.makeCommandQueue())
    commands = try XCTUnwrap(queue.makeCommandBuffer())
  }

  func buffer(_ options: MTLResourceOptions = []) throws -> any MTLBuffer {
    try XCTUnwrap(device.makeBuffer(length: 16, options: options))
  }

  func blit(_ commands: (any MTLCommandBuffer)? = nil, _ body: (any MTLBlitCommandEncoder) throws -> Void) throws {
    let encoder = try XCTUnwrap((commands ?? self.commands).makeBlitCommandEncoder())
    try body(encoder)
    encoder.endEncoding()
  }
}
