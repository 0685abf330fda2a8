/// Finds the kernels of preprocessed shading-language text and turns the text into C++: address spaces go, threadgroup
/// variables become one for all threads, function constants get their values. What it does not know is an error.

/// What the shading language lacks of C++, as its specification says.
private let forbidden: Set<String> = [
  "double", "goto", "new", "delete", "dynamic_cast", "typeid", "try", "throw", "catch", "virtual", "thread_local", "std", "asm",
  "__asm__", "register", "noexcept",
]
private let unknownSpaces: Set<String> = ["threadgroup_imageblock", "object_data", "ray_data"]
private let knownAttributes: Set<String> = ["nodiscard", "maybe_unused", "likely", "unlikely", "fallthrough"]
private let statements: Set<String> = ["if", "for", "while", "switch", "return", "sizeof", "alignas", "decltype"]

private let exchanges: Set<String> = [
  "simdgroup_barrier", "simd_sum", "simd_product", "simd_max", "simd_min", "simd_and", "simd_or", "simd_xor", "simd_shuffle",
  "simd_broadcast", "simd_broadcast_first", "simd_shuffle_xor", "simd_shuffle_up", "simd_shuffle_down", "simd_prefix_exclusive_sum",
  "simd_prefix_inclusive_sum", "simd_all", "simd_any", "simd_is_first", "simd_ballot", "simd_active_threads_mask",
]

/// What thread attributes mean.
private let places: [String: String] = [
  "thread_position_in_grid": "t->in_grid",
  "thread_position_in_threadgroup": "t->in_group",
  "threadgroup_position_in_grid": "t->group_at",
  "threads_per_threadgroup": "t->group_size",
  "dispatch_threads_per_threadgroup": "l->group",
  "threads_per_grid": "l->grid",
  "threadgroups_per_grid": "l->groups",
  "thread_index_in_threadgroup": "t->index",
  "thread_index_in_simdgroup": "(t->index % 32)",
  "simdgroup_index_in_threadgroup": "(t->index / 32)",
  "threads_per_simdgroup": "32u",
  "thread_execution_width": "32u",
  "simdgroups_per_threadgroup": "((t->group_threads + 31) / 32)",
]

struct Scanner {
  private var text: TokenText
  private var kernels: [KernelText] = []
  private var declarations: [(constant: FunctionConstant, range: Range<Int>)] = []
  private var questions: [(name: String, range: Range<Int>)] = []
  private var functions: [(name: String, body: Range<Int>)] = []
  private var waiting: Set<String> = []

  private init(_ preprocessed: String) {
    text = TokenText(preprocessed)
  }

  static func scan(_ preprocessed: String) throws(ScanError) -> ScannedText {
    var scanner = Scanner(preprocessed)
    scanner.findFunctions()
    try scanner.findConstants()
    try scanner.replaceWords()
    try scanner.findKernels()
    try scanner.checkAttributes()
    return ScannedText(
      kernels: scanner.kernels, constants: scanner.declarations.map(\.constant), tokens: scanner.text,
      declarations: scanner.declarations, questions: scanner.questions)
  }

  private func fail(_ index: Int, _ message: String) -> ScanError {
    ScanError(line: text.tokens.indices.contains(index) ? text.tokens[index].line : 1, text: message)
  }

  /// Names and bodies, and which of them can wait for other threads, directly or through others.
  private mutating func findFunctions() {
    let tokens = text.tokens
    for (index, token) in tokens.enumerated() where token.kind == .mark && token.spelling == "{" {
      guard let name = nameOfBody(index), let end = text.closing(index) else { continue }
      functions.append((name, index..<end))
    }
    var found = true
    while found {
      found = false
      for (name, body) in functions where !waiting.contains(name) {
        guard body.contains(where: { waits(tokens[$0]) }) else { continue }
        waiting.insert(name)
        found = true
      }
    }
  }

  private func waits(_ token: Token) -> Bool {
    guard token.kind == .word else { return false }
    return token.spelling == "threadgroup_barrier" || token.spelling.hasPrefix("simd") || waiting.contains(token.spelling)
  }

  /// The function whose body opens at `brace`: the word before the parentheses before it.
  private func nameOfBody(_ brace: Int) -> String? {
    var index = brace - 1
    while index > 0 && text.tokens[index].kind == .word { index -= 1 }
    guard text.isMark(index, ")") else { return nil }
    var depth = 0
    while index >= 0 {
      if text.isMark(index, ")") { depth += 1 }
      if text.isMark(index, "(") { depth -= 1 }
      if depth == 0 { break }
      index -= 1
    }
    guard index > 0, text.tokens[index - 1].kind == .word else { return nil }
    let name = text.tokens[index - 1].spelling
    return statements.contains(name) ? nil : name
  }

  private mutating func findConstants() throws(ScanError) {
    var asked: Set<String> = []
    for (index, token) in text.tokens.enumerated() where token.spelling == "is_function_constant_defined" {
      guard text.isMark(index + 1, "("), text.isMark(index + 3, ")") else { throw fail(index, "is_function_constant_defined needs a name") }
      let name = text.tokens[index + 2].spelling
      asked.insert(name)
      questions.append((name, index..<index + 4))
    }
    for (index, token) in text.tokens.enumerated() where token.spelling == "function_constant" {
      // constant TYPE NAME [[function_constant(N)]]
      guard index >= 5, text.isMark(index - 1, "["), text.isMark(index - 2, "["), text.isMark(index + 1, "("),
        let number = Int(text.tokens[index + 2].spelling), text.isMark(index + 3, ")"), text.isMark(index + 5, "]"),
        text.isMark(index + 6, ";")
      else { throw fail(index, "the stand-in knows function constants as `constant TYPE NAME [[function_constant(N)]];`") }
      let name = text.tokens[index - 3].spelling
      guard text.tokens[index - 5].spelling == "constant", let type = scalar(text.tokens[index - 4].spelling) else {
        throw fail(index, "function constant \(name): the stand-in knows scalar types only")
      }
      let constant = FunctionConstant(name: name, type: type, index: number, isOptional: asked.contains(name))
      declarations.append((constant, index - 5..<index + 6))
    }
  }

  private func scalar(_ name: String) -> ScalarType? {
    let long = ["int8_t": "char", "uint8_t": "uchar", "int16_t": "short", "uint16_t": "ushort", "int32_t": "int", "uint32_t": "uint"]
    return ScalarType(rawValue: long[name] ?? name)
  }

  private mutating func replaceWords() throws(ScanError) {
    for (index, token) in text.tokens.enumerated() where token.kind == .word {
      let word = token.spelling
      if forbidden.contains(word) { throw fail(index, "`\(word)` is not part of the Metal shading language") }
      if unknownSpaces.contains(word) { throw fail(index, "the stand-in does not know `\(word)`") }
      switch word {
      case "device", "thread": text.replace(index, with: "")
      case "constant":
        let beside = [index - 1, index + 1].contains { text.tokens.indices.contains($0) && text.tokens[$0].spelling == "const" }
        text.replace(index, with: beside ? "" : "const")
      case "threadgroup": text.replace(index, with: try isGroupVariable(index) ? "static thread_local" : "")
      case _ where exchanges.contains(word): text.replace(index, with: "headrace_simd<\(index)>::\(word)")
      default: break
      }
    }
  }

  /// The token before `index`, line markers left out; ";" at the start.
  private func spelling(before index: Int) -> String {
    text.tokens[..<index].last { $0.kind != .directive }?.spelling ?? ";"
  }

  /// Whether `threadgroup` at `index` begins a variable, and not a pointer or a reference to one.
  private func isGroupVariable(_ index: Int) throws(ScanError) -> Bool {
    for token in text.tokens[(index + 1)...] where token.kind == .mark {
      if ["*", "&", "("].contains(token.spelling) { return false }
      if ["=", ";", "[", ",", ")"].contains(token.spelling) { break }
    }
    let before = spelling(before: index)
    if ["(", ","].contains(before) { return false }
    if [";", "{", "}"].contains(before) { return true }
    throw fail(index, "the stand-in knows no `\(before)` before `threadgroup`")
  }

  private mutating func findKernels() throws(ScanError) {
    var depth = 0
    for (index, token) in text.tokens.enumerated() {
      if text.isMark(index, "{") { depth += 1 }
      if text.isMark(index, "}") { depth -= 1 }
      guard token.kind == .word, token.spelling == "kernel" else { continue }
      let isAttribute = text.isMark(index - 1, "[") && text.isMark(index - 2, "[")
      if depth > 0 { throw fail(index, "the stand-in knows kernels outside of namespaces and classes only") }
      let before = spelling(before: isAttribute ? index - 2 : index)
      if ![";", "}"].contains(before) {
        throw fail(index, "the stand-in knows no `\(before)` before `kernel`")
      }
      var maxThreads = 0
      var start = index + 1
      if isAttribute {
        (start, maxThreads) = try readAttributes(from: index - 2)
        text.replace(index - 2, with: "static")
      } else {
        text.replace(index, with: "static")
      }
      try readKernel(from: start, maxThreads: maxThreads)
    }
  }

  /// Reads `[[a, b(1)]]` of a kernel; gives the index after it, and the threads that it allows.
  private mutating func readAttributes(from open: Int) throws(ScanError) -> (end: Int, maxThreads: Int) {
    guard let close = text.closing(open), text.isMark(close - 1, "]") else { throw fail(open, "an attribute has no end") }
    var maxThreads = 0
    for range in split(open + 2..<close - 1) {
      let name = text.tokens[range.lowerBound].spelling
      if name == "kernel" { continue }
      guard name == "max_total_threads_per_threadgroup", range.count > 3, let number = Int(text.spelling(range.lowerBound + 2..<range.upperBound - 1))
      else { throw fail(open, "the stand-in does not know attribute `\(text.spelling(range))` of a kernel") }
      maxThreads = number
    }
    text.replaceAll(open..<close + 1, with: "")
    return (close + 1, maxThreads)
  }

  private mutating func readKernel(from start: Int, maxThreads: Int) throws(ScanError) {
    var maxThreads = maxThreads
    var index = start
    while index < text.tokens.count && !text.isMark(index, "(") {
      if text.isMark(index, "["), text.isMark(index + 1, "[") {
        (index, maxThreads) = try readAttributes(from: index)
      } else {
        index += 1
      }
    }
    guard index < text.tokens.count, let end = text.closing(index), text.isMark(end + 1, "{") else {
      throw fail(start, "a kernel needs arguments and a body")
    }
    let name = text.tokens[index - 1].spelling
    guard text.tokens[start].spelling == "void" else { throw fail(start, "kernel \(name) must return void") }
    if kernels.contains(where: { $0.name == name }) { throw fail(start, "kernel \(name) is defined twice") }
    var arguments: [KernelArgument] = []
    for range in split(index + 1..<end) { arguments.append(try readArgument(range, of: name)) }
    kernels.append(KernelText(name: name, arguments: arguments, cooperates: waiting.contains(name), maxThreads: maxThreads))
  }

  /// Cuts `range` at its outer commas.
  private func split(_ range: Range<Int>) -> [Range<Int>] {
    var pieces: [Range<Int>] = []
    var start = range.lowerBound
    var depth = 0
    for index in range {
      let spelling = text.tokens[index].spelling
      if ["(", "[", "{", "<"].contains(spelling) { depth += 1 }
      if [")", "]", "}", ">"].contains(spelling) { depth -= 1 }
      guard spelling == ",", depth == 0 else { continue }
      pieces.append(start..<index)
      start = index + 1
    }
    if start < range.upperBound { pieces.append(start..<range.upperBound) }
    return pieces
  }

  private mutating func readArgument(_ range: Range<Int>, of kernel: String) throws(ScanError) -> KernelArgument {
    guard let open = range.first(where: { text.isMark($0, "[") && text.isMark($0 + 1, "[") }), open > range.lowerBound + 1,
      let close = text.closing(open), close + 1 == range.upperBound
    else {
      throw fail(range.lowerBound, "kernel \(kernel): argument `\(text.spelling(range))` needs one attribute of the form [[…]] at its end")
    }
    let name = text.tokens[open - 1].spelling
    let type = text.spelling(range.lowerBound..<open - 1)
    let attribute = text.tokens[open + 2].spelling
    let number = text.isMark(open + 3, "(") ? Int(text.tokens[open + 4].spelling) : nil
    text.replaceAll(open..<close + 1, with: "")
    let source: KernelArgument.Source
    switch (attribute, number) {
    case ("buffer", .some(0..<31)): source = .buffer(number ?? 0)
    case ("threadgroup", .some(0..<31)): source = .groupMemory(number ?? 0)
    case (_, nil) where places[attribute] != nil: source = .place(places[attribute] ?? "")
    default: throw fail(open, "kernel \(kernel): the stand-in does not know `[[\(attribute)\(number.map { "(\($0))" } ?? "")]]` of argument \(name)")
    }
    return KernelArgument(name: name, type: type, source: source)
  }

  /// Every attribute must have been understood by now.
  private func checkAttributes() throws(ScanError) {
    let constants = declarations.map(\.range)
    for index in text.tokens.indices where text.isMark(index, "[") && text.isMark(index + 1, "[") {
      if text.wasReplaced(index) || constants.contains(where: { $0.contains(index) }) { continue }
      let name = text.tokens[index + 2].spelling
      if !knownAttributes.contains(name) { throw fail(index, "the stand-in does not know attribute `\(name)`") }
    }
  }
}
