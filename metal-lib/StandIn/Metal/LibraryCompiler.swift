/// Compiles kernel text: g++ makes a shared object of it, behind a text that gives g++ the shading language's types
/// and functions. Objects are kept for the process's life.
import CStandIn
import Foundation

typealias KernelEntry = @convention(c) (UnsafePointer<standin_launch>?, UnsafePointer<standin_thread>?) -> Void

/// A kernel, ready to run.
struct CompiledKernel: Sendable {
  let text: KernelText
  let runThread: KernelEntry
  let runGroup: KernelEntry
  /// Bytes that each argument needs behind its offset, 0 for pointers; and the alignment of what it points to.
  let argumentBytes: [Int]
  let argumentAlignments: [Int]
  /// Of its `threadgroup` variables.
  let staticMemory: Int
}

/// What the compiler makes of a text with values for its constants.
final class CompiledObject: Sendable {
  /// The shared object.
  let bytes: [UInt8]
  let kernels: [String: CompiledKernel]

  init(bytes: [UInt8], kernels: [String: CompiledKernel]) {
    self.bytes = bytes
    self.kernels = kernels
  }
}

/// What goes wrong with text, or with the compiler.
enum CompileError: Error {
  case text(String)
  case tools(String)
}

struct KernelCompiler: Sendable {
  let language: MTLLanguageVersion
  let macros: [String: String]

  /// The text as scanned; the compiler has seen it and its constants, and has no complaint.
  func scan(_ source: String) throws(CompileError) -> ScannedText {
    let folder = try Folder()
    defer { folder.remove() }
    try folder.write("kernel.metal", "# 1 \"program_source\"\n" + source)
    for name in shimHeaders { try folder.write("include/\(name)", shimMacros) }
    let defined = macros.sorted { $0.key < $1.key }.map { "-D\($0.key)=\($0.value)" }
    try folder.run(
      ["g++", "-E", "-x", "c++", "-undef", "-nostdinc", "-Iinclude", standard, "-D__METAL__=1", "-D__METAL_VERSION__=\(versionNumber)"]
        + ["-D__METAL_MACOS__=1"] + (language.rawValue >= 0x30001 ? ["-D__HAVE_BFLOAT__=1"] : []) + defined + ["kernel.metal", "-o", "kernel.ii"])
    let scanned: ScannedText
    do { scanned = try Scanner.scan(try folder.read("kernel.ii")) } catch let error as ScanError {
      throw .text(error.message)
    } catch { throw .tools("\(error)") }
    if !scanned.constants.isEmpty {
      try folder.write("kernel.cpp", program(scanned, kernel: nil, values: [:]))
      try folder.run(["g++", "-fsyntax-only"] + flags + ["kernel.cpp"])
    }
    return scanned
  }

  /// The object of `scanned`, compiled unless the process has it. Where the text has function constants, `kernel` alone
  /// is in it, so that the constants of the others need no value.
  func object(of scanned: ScannedText, kernel: String?, values: [String: String]) throws(CompileError) -> CompiledObject {
    let text = program(scanned, kernel: kernel, values: values)
    if let known = CompiledObjects.shared.find(text) { return known }
    let folder = try Folder()
    defer { folder.remove() }
    try folder.write("kernel.cpp", text)
    try folder.run(["g++", "-shared", "-fPIC", "-o", "kernel.so"] + flags + ["kernel.cpp", "-Wl,-z,defs", "-lm"])
    let made = try load(try folder.readBytes("kernel.so"), kernels: kernels(scanned, kernel))
    return CompiledObjects.shared.keep(made, for: text)
  }

  /// An object from an archive.
  func load(_ bytes: [UInt8], of scanned: ScannedText, kernel: String?) throws(CompileError) -> CompiledObject {
    try load(bytes, kernels: kernels(scanned, kernel))
  }

  private func load(_ bytes: [UInt8], kernels: [KernelText]) throws(CompileError) -> CompiledObject {
    let folder = try Folder()
    defer { folder.remove() }
    try folder.writeBytes("kernel.so", bytes)
    let path = folder.path + "/kernel.so"
    var message = [CChar](repeating: 0, count: 256)
    guard let object = standin_open_object(path, &message) else { throw .tools(text(of: message)) }
    var compiled: [String: CompiledKernel] = [:]
    for kernel in kernels { compiled[kernel.name] = try find(kernel, in: object, path: path) }
    return CompiledObject(bytes: bytes, kernels: compiled)
  }

  private func find(_ kernel: KernelText, in object: UnsafeMutableRawPointer, path: String) throws(CompileError) -> CompiledKernel {
    guard let thread = standin_symbol(object, "headrace_thread_\(kernel.name)"), let group = standin_symbol(object, "headrace_group_\(kernel.name)"),
      let sizes = standin_symbol(object, "headrace_sizes_\(kernel.name)")
    else { throw .tools("the object has no kernel \(kernel.name)") }
    let numbers = UnsafeBufferPointer(start: sizes.assumingMemoryBound(to: UInt32.self), count: kernel.arguments.count * 2)
    return CompiledKernel(
      text: kernel, runThread: unsafeBitCast(thread, to: KernelEntry.self), runGroup: unsafeBitCast(group, to: KernelEntry.self),
      argumentBytes: kernel.arguments.indices.map { Int(numbers[2 * $0]) },
      argumentAlignments: kernel.arguments.indices.map { Int(numbers[2 * $0 + 1]) },
      staticMemory: Int(standin_static_memory(path, kernel.name)))
  }

  /// What names an object in an archive: the same text, constants and language give the same.
  func key(_ scanned: ScannedText, kernel: String?, values: [String: String]) -> String {
    fingerprint(program(scanned, kernel: kernel, values: values).utf8)
  }

  private var versionNumber: Int { Int(language.rawValue >> 16) * 100 + Int(language.rawValue & 0xffff) * 10 }
  /// C++17 from Metal 4 on, C++14 before.
  private var standard: String { language.rawValue >= 0x40000 ? "-std=c++17" : "-std=c++14" }

  private var flags: [String] {
    [
      standard, "-O2", "-fno-exceptions", "-fno-rtti", "-fvisibility=hidden", "-fno-fast-math", "-ffp-contract=off", "-fsingle-precision-constant",
      "-fexcess-precision=16", "-fno-strict-aliasing", "-fdiagnostics-color=never", "-fmax-errors=20", "-w",
    ]
  }

  private func kernels(_ scanned: ScannedText, _ name: String?) -> [KernelText] {
    scanned.constants.isEmpty ? scanned.kernels : scanned.kernels.filter { name == nil || $0.name == name }
  }

  /// The whole C++ text: the language, the kernels, and for each an entry that finds its arguments.
  private func program(_ scanned: ScannedText, kernel: String?, values: [String: String]) -> String {
    let entries = kernels(scanned, kernel).map(entry)
    return "# 1 \"metal_stdlib\"\n" + shimTypes + "\n" + shimMath + "\n" + shimThreads + "\n# 1 \"program_source\"\n" + scanned.cxx(values: values)
      + "\n# 1 \"entries\"\n" + entries.joined()
  }

  private func entry(_ kernel: KernelText) -> String {
    let arguments = kernel.arguments.map { argument in
      switch argument.source {
      case .buffer(let index): "headrace_argument<\(argument.type)>::at(l->buffers[\(index)])"
      case .groupMemory(let index): "headrace_argument<\(argument.type)>::at(l->group_memory[\(index)])"
      case .place(let value): "headrace_place<\(argument.type)>::of(\(value))"
      }
    }
    let sizes = kernel.arguments.map { argument in
      if case .place = argument.source { return "0, 1" }
      return "headrace_argument<\(argument.type)>::bytes, headrace_argument<\(argument.type)>::alignment"
    }
    let visible = "extern \"C\" __attribute__((visibility(\"default\")))"
    return """
      \(visible) void headrace_thread_\(kernel.name)(const headrace_launch *l, const headrace_thread *t) { ::\(kernel.name)(\(arguments.joined(separator: ", "))); }
      \(visible) void headrace_group_\(kernel.name)(const headrace_launch *l, const headrace_thread *first) {
        headrace_for_group(first, [l](const headrace_thread *t) { ::\(kernel.name)(\(arguments.joined(separator: ", "))); });
      }
      extern "C" { __attribute__((visibility("default"))) extern const uint headrace_sizes_\(kernel.name)[];
      const uint headrace_sizes_\(kernel.name)[] = { \((sizes + ["0, 1"]).joined(separator: ", ")) }; }

      """
  }
}

/// Objects of this process by their text.
final class CompiledObjects: @unchecked Sendable {
  static let shared = CompiledObjects()
  private let lock = NSLock()
  private var objects: [String: CompiledObject] = [:]

  func find(_ text: String) -> CompiledObject? {
    lock.withLock { objects[text] }
  }

  /// The first one stays where two threads compiled the same.
  func keep(_ object: CompiledObject, for text: String) -> CompiledObject {
    lock.withLock {
      if let known = objects[text] { return known }
      objects[text] = object
      return object
    }
  }
}

func text(of characters: [CChar]) -> String {
  String(decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// 128 bits that tell bytes apart; no protection against who means harm.
func fingerprint(_ bytes: some Swift.Sequence<UInt8>) -> String {
  var first: UInt64 = 0xcbf2_9ce4_8422_2325
  var second: UInt64 = 0x9e37_79b9_7f4a_7c15
  for byte in bytes {
    first = (first ^ UInt64(byte)) &* 0x100_0000_01b3
    second = (second &+ UInt64(byte)) &* 0xff51_afd7_ed55_8ccd
    second ^= second >> 29
  }
  return String(first, radix: 16) + "-" + String(second, radix: 16)
}
