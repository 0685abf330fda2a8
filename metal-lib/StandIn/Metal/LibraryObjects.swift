// Libraries and functions of the stand-in.
import CStandIn
import Foundation

extension StandInDevice {
  public func makeLibrary(source: String, options: MTLCompileOptions?) throws -> any MTLLibrary {
    let options = options ?? MTLCompileOptions()
    let macros = (options.preprocessorMacros ?? [:]).mapValues { value in
      switch value {
      case let text as NSString: "\(text)"
      case let number as NSNumber: "\(number)"
      default: trap("preprocessorMacros: values must be NSString or NSNumber")
      }
    }
    let compiler = KernelCompiler(language: options.languageVersion, macros: macros)
    do throws(CompileError) {
      let scanned = try compiler.scan(source)
      // Text without function constants is compiled whole, so that its errors show here, as Metal's do.
      if scanned.constants.isEmpty { _ = try compiler.object(of: scanned, kernel: nil, values: [:]) }
      return StandInLibrary(device: self, compiler: compiler, scanned: scanned)
    } catch {
      throw libraryError(error)
    }
  }
}

func libraryError(_ error: CompileError) -> NSError {
  switch error {
  case .text(let said): libraryError(.compileFailure, "program_source compilation failed: \n\(said)")
  case .tools(let said): libraryError(.internal, said)
  }
}

func libraryError(_ code: MTLLibraryError.Code, _ text: String) -> NSError {
  NSError(domain: MTLLibraryErrorDomain, code: Int(code.rawValue), userInfo: [NSLocalizedDescriptionKey: text])
}

final class StandInLibrary: NSObject, MTLLibrary, @unchecked Sendable {
  // Sendable because all is constant but the label, which only the program that sets it reads.
  let owner: StandInDevice
  let compiler: KernelCompiler
  let scanned: ScannedText
  var label: String?
  var device: any MTLDevice { owner }
  var functionNames: [String] { scanned.kernels.map(\.name) }

  init(device: StandInDevice, compiler: KernelCompiler, scanned: ScannedText) {
    owner = device
    self.compiler = compiler
    self.scanned = scanned
    super.init()
  }

  func makeFunction(name functionName: String) -> (any MTLFunction)? {
    guard scanned.kernels.contains(where: { $0.name == functionName }) else { return nil }
    return StandInFunction(library: self, name: functionName, values: [:])
  }

  func makeFunction(name: String, constantValues: MTLFunctionConstantValues) throws -> any MTLFunction {
    guard scanned.kernels.contains(where: { $0.name == name }) else {
      throw libraryError(.functionNotFound, "Function \(name) was not found in the library")
    }
    var values: [String: String] = [:]
    for constant in scanned.constants {
      guard let value = constantValues.byName[constant.name] ?? constantValues.byIndex[constant.index] else { continue }
      guard value.type == constant.type.dataType else {
        throw libraryError(
          .compileFailure,
          "function constant \(constant.name) (\(constant.index)) is a \(constant.type), and its value is of MTLDataType \(value.type.rawValue)")
      }
      values[constant.name] = constant.type.literal(value.bytes)
    }
    return StandInFunction(library: self, name: name, values: values)
  }
}

extension ScalarType {
  /// A C++ constant of exactly these bytes.
  func literal(_ bytes: [UInt8]) -> String {
    let bits = bytes.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    return switch self {
    case .bool: bits == 0 ? "false" : "true"
    case .half, .bfloat: "__builtin_bit_cast(\(rawValue), ushort(\(bits)u))"
    case .float: "__builtin_bit_cast(float, \(bits)u)"
    default: "\(rawValue)(\(bits)ul)"
    }
  }
}

final class StandInFunction: NSObject, MTLFunction, @unchecked Sendable {
  // Sendable because all is constant but the label, which only the program that sets it reads.
  let library: StandInLibrary
  let name: String
  /// Of function constants, by name, as C++.
  let values: [String: String]
  var label: String?
  var device: any MTLDevice { library.owner }
  var functionType: MTLFunctionType { .kernel }

  var functionConstantsDictionary: [String: MTLFunctionConstant] {
    let constants = library.scanned.constants.map { constant in
      MTLFunctionConstant(
        name: constant.name, type: constant.type.dataType, index: constant.index, required: !constant.isOptional)
    }
    return Dictionary(constants.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
  }

  init(library: StandInLibrary, name: String, values: [String: String]) {
    self.library = library
    self.name = name
    self.values = values
    super.init()
  }

  var key: String { library.compiler.key(library.scanned, kernel: name, values: values) }

  func compile() throws(CompileError) -> CompiledObject {
    try library.compiler.object(of: library.scanned, kernel: name, values: values)
  }

  func load(_ bytes: [UInt8]) throws(CompileError) -> CompiledObject {
    try library.compiler.load(bytes, of: library.scanned, kernel: name)
  }
}
