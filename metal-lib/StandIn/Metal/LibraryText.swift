/// What the scanner makes of kernel text.

/// What the text says wrongly, or what the stand-in does not know; as a compiler says it.
struct ScanError: Error {
  let line: Int
  let text: String
  var message: String { "program_source:\(line): error: \(text)" }
}

/// One argument of a kernel.
struct KernelArgument {
  enum Source: Equatable {
    case buffer(Int)
    case groupMemory(Int)
    /// A field of headrace_thread, or of headrace_launch, or an expression over the former.
    case place(String)
  }
  let name: String
  /// As C++.
  let type: String
  let source: Source
}

struct KernelText {
  let name: String
  let arguments: [KernelArgument]
  /// Its threads wait for one another.
  let cooperates: Bool
  /// 0 where it says nothing.
  let maxThreads: Int
}

struct FunctionConstant {
  let name: String
  let type: ScalarType
  let index: Int
  /// Whether the text asks if it is defined, so that it need not be.
  let isOptional: Bool
}

struct ScannedText {
  let kernels: [KernelText]
  let constants: [FunctionConstant]
  /// The preprocessed text, and where the constants stand in it.
  let tokens: TokenText
  let declarations: [(constant: FunctionConstant, range: Range<Int>)]
  let questions: [(name: String, range: Range<Int>)]

  /// The text as C++. Constants without a value stay declared, so that using one does not link.
  func cxx(values: [String: String]) -> String {
    var result = tokens
    for (constant, range) in declarations {
      let value = values[constant.name].map { "static const \(constant.type.rawValue) \(constant.name) = \($0)" }
      result.replaceAll(range, with: value ?? "extern const \(constant.type.rawValue) \(constant.name)")
    }
    for (name, range) in questions {
      result.replaceAll(range, with: values[name] == nil ? "false" : "true")
    }
    return result.text
  }
}

extension TokenText {
  /// Puts `text` in the place of tokens `range`.
  mutating func replaceAll(_ range: Range<Int>, with text: String) {
    for index in range { replace(index, with: index == range.lowerBound ? text : "") }
  }
}
