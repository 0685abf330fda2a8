/// A folder for one run of the compiler, and what its include folder holds.
import CStandIn
import Foundation

struct Folder {
  let path: String

  init() throws(CompileError) {
    var template = Array((NSTemporaryDirectory() + "/headrace-kernel.XXXXXX").utf8CString)
    guard mkdtemp(&template) != nil else { throw .tools("mkdtemp in \(NSTemporaryDirectory()): errno \(errno)") }
    path = text(of: template)
    guard mkdir(path + "/include", 0o700) == 0 else { throw .tools("mkdir in \(path): errno \(errno)") }
  }

  func remove() {
    try? FileManager.default.removeItem(atPath: path)
  }

  func write(_ name: String, _ text: String) throws(CompileError) {
    try writeBytes(name, Array(text.utf8))
  }

  func writeBytes(_ name: String, _ bytes: [UInt8]) throws(CompileError) {
    do { try Data(bytes).write(to: URL(fileURLWithPath: path + "/" + name)) } catch { throw .tools("\(error)") }
  }

  func read(_ name: String) throws(CompileError) -> String {
    String(decoding: try readBytes(name), as: UTF8.self)
  }

  func readBytes(_ name: String) throws(CompileError) -> [UInt8] {
    do { return Array(try Data(contentsOf: URL(fileURLWithPath: path + "/" + name))) } catch { throw .tools("\(error)") }
  }

  /// Runs the compiler here. What it says of the text is the error.
  func run(_ command: [String]) throws(CompileError) {
    let arguments = command.map { strdup($0) }
    defer { for argument in arguments { free(argument) } }
    let pointers = arguments.map { UnsafePointer($0) } + [nil]
    let status = standin_spawn(pointers, path, path + "/log")
    if status == 0 { return }
    let said = (try? read("log")) ?? ""
    if status < 0 { throw .tools("\(command[0]): could not be started: errno \(-status)") }
    if said.contains("error:") { throw .text(said) }
    throw .tools("\(command[0]) ended with status \(status): \(said)")
  }
}

/// The headers that kernel text may name. They define macros only: the functions stand before the text.
let shimHeaders = [
  "metal_stdlib", "metal_math", "metal_integer", "metal_common", "metal_atomic", "metal_compute", "metal_simdgroup", "metal_geometric",
  "metal_relational", "metal_types", "metal_config", "metal_limits", "metal_pack",
]

let shimMacros = """
  #pragma once
  #ifndef MAXFLOAT
  #define MAXFLOAT 3.402823466e+38f
  #define FLT_MAX 3.402823466e+38f
  #define FLT_MIN 1.175494351e-38f
  #define FLT_EPSILON 1.192092896e-07f
  #define INFINITY (__builtin_inff())
  #define NAN (__builtin_nanf(""))
  #define HUGE_VALF (__builtin_inff())
  #define HALF_MAX half(65504.0f)
  #define HALF_MIN half(6.103515625e-05f)
  #define MAXHALF half(65504.0f)
  #define M_PI_F 3.14159265358979323846f
  #define M_E_F 2.71828182845904523536f
  #define M_LN2_F 0.693147180559945309417f
  #define M_LOG2E_F 1.44269504088896340736f
  #define M_SQRT2_F 1.41421356237309504880f
  #define CHAR_BIT 8
  #define INT_MAX 2147483647
  #define INT_MIN (-2147483647 - 1)
  #define UINT_MAX 4294967295u
  #define SHRT_MAX 32767
  #define USHRT_MAX 65535
  #define LONG_MAX 9223372036854775807l
  #define ULONG_MAX 18446744073709551615ul
  #endif

  """
