import CHeadrace
import Foundation
import Metal

/// Compiled kernel source.
final class Library: Resource, @unchecked Sendable {  // MTLLibrary may be used by any thread; the rest never changes.
  let metal: any MTLLibrary
  let device: Device

  private init(device: Device, metal: any MTLLibrary) {
    self.device = device
    self.metal = metal
    super.init(kind: .library, device: device)
  }

  override class var kind: Kind { .library }

  /// Compiles `source` with safe math. `macros` has one NAME=VALUE a line; `language` is major << 16 | minor, 0 the
  /// newest. HR_COMPILE_FAILED with the compiler's first error, HR_INVALID, HR_UNSUPPORTED for a language that is too
  /// new, HR_DEVICE_LOST.
  static func compile(device: Device, source: String, macros: String, language: UInt32) throws(Failure) -> Library {
    try device.checkAlive()
    let options = MTLCompileOptions()
    options.preprocessorMacros = try parse(macros: macros)
    if language != 0 { options.languageVersion = try version(language, of: device) }
    useSafeMath(options)
    do {
      return Library(device: device, metal: try device.metal.makeLibrary(source: source, options: options))
    } catch {
      throw compileFailure("kernel source of \(source.utf8.count) bytes", error)
    }
  }

  /// The function with values for its constants. HR_INVALID where there is none, HR_COMPILE_FAILED.
  func function(_ name: String, constants: [hr_constant]) throws(Failure) -> any MTLFunction {
    let names = metal.functionNames
    guard names.contains(name) else {
      let known = names.isEmpty ? "none" : names.joined(separator: ", ")
      throw Failure(Status.invalid, "the library has no function \(name); it has \(known)")
    }
    if constants.isEmpty, let function = metal.makeFunction(name: name) { return function }
    do {
      return try metal.makeFunction(name: name, constantValues: try Self.values(constants))
    } catch let failure as Failure {
      throw failure
    } catch {
      throw compileFailure("function \(name)", error)
    }
  }

  private static func values(_ constants: [hr_constant]) throws(Failure) -> MTLFunctionConstantValues {
    let values = MTLFunctionConstantValues()
    for constant in constants {
      var bits = constant.bits
      var isTrue = constant.bits != 0
      switch constant.type {
      case 0: values.setConstantValue(&isTrue, type: .bool, index: Int(constant.index))
      case 1: values.setConstantValue(&bits, type: .int, index: Int(constant.index))
      case 2: values.setConstantValue(&bits, type: .uint, index: Int(constant.index))
      case 3: values.setConstantValue(&bits, type: .float, index: Int(constant.index))
      default:
        throw Failure(
          Status.invalid, "function constant \(constant.index): type \(constant.type) must be 0 to 3 (bool, int32, uint32, float)")
      }
    }
    return values
  }

  private static func parse(macros: String) throws(Failure) -> [String: NSObject] {
    var parsed: [String: NSObject] = [:]
    for line in macros.split(whereSeparator: \.isNewline) {
      let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      let name = parts[0]
      guard let first = name.first, first.isLetter || first == "_", name.allSatisfy({ $0.isLetter || $0.isNumber || $0 == "_" })
      else { throw Failure(Status.invalid, "macro `\(line)` must be NAME or NAME=VALUE") }
      parsed[String(name)] = NSString(string: parts.count > 1 ? String(parts[1]) : "1")
    }
    return parsed
  }

  /// The highest minor version of each major one that this library knows of.
  private static let minors: [UInt32: UInt32] = [1: 2, 2: 4, 3: 2, 4: 0]

  /// Checked by its number: on a Mac any number makes an MTLLanguageVersion.
  private static func version(_ language: UInt32, of device: Device) throws(Failure) -> MTLLanguageVersion {
    let most = device.languageVersion
    let (major, minor) = (language >> 16, language & 0xffff)
    guard language <= most, let minors = minors[major], minor <= minors, language != 1 << 16,
      let version = MTLLanguageVersion(rawValue: UInt(language))
    else {
      throw Failure(
        Status.unsupported,
        "Metal language \(major).\(minor) is asked for, and this system has 1.1 to \(most >> 16).\(most & 0xffff)")
    }
    return version
  }

  /// No reassociation, no assumption that there are no NaNs or infinities, and functions of full precision: so that
  /// results can be compared with those of other devices.
  private static func useSafeMath(_ options: MTLCompileOptions) {
    #if HEADRACE_SDK_15
      if #available(macOS 15.0, *) {
        options.mathMode = .safe
        options.mathFloatingPointFunctions = .precise
        return
      }
    #endif
    options.fastMathEnabled = false
  }
}

/// HR_COMPILE_FAILED with the first error of a compiler, HR_DEVICE_FAILED where the compiler itself has failed.
func compileFailure(_ what: String, _ error: any Error) -> Failure {
  let error = error as NSError
  let isInternal = error.domain == MTLLibraryErrorDomain && error.code == Int(MTLLibraryError.Code.`internal`.rawValue)
  let lines = error.localizedDescription.split(whereSeparator: \.isNewline)
  let line = lines.first { $0.contains("error:") } ?? lines.first ?? "no description"
  return Failure(isInternal ? Status.deviceFailed : Status.compileFailed, "\(what): \(line) (\(error.domain) \(error.code))")
}
