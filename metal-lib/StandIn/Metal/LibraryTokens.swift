/// Splits preprocessed kernel text into tokens, so that the scanner can find kernels and exchange single words.

/// A piece of the text; white space lies between pieces.
struct Token {
  enum Kind { case word, number, text, mark, directive }
  let kind: Kind
  /// Of the text's bytes.
  let range: Range<Int>
  /// In the source, from 1.
  let line: Int
  let spelling: String
}

/// The text and its tokens. Replacing a token keeps everything around it, so that lines stay where they are.
struct TokenText {
  let bytes: [UInt8]
  let tokens: [Token]
  private var replaced: [Int: String] = [:]

  /// `text` is what the preprocessor gives: no comments, line markers in place.
  init(_ text: String) {
    bytes = Array(text.utf8)
    var reader = TokenReader(bytes: bytes)
    tokens = reader.readAll()
  }

  mutating func replace(_ index: Int, with text: String) {
    replaced[index] = text
  }

  /// Tokens `range` with what was replaced, for use elsewhere: on one line.
  func spelling(_ range: Range<Int>) -> String {
    range.map { replaced[$0] ?? tokens[$0].spelling }.filter { !$0.isEmpty }.joined(separator: " ")
  }

  func wasReplaced(_ index: Int) -> Bool { replaced[index] != nil }

  /// The whole text with what was replaced.
  var text: String {
    var result: [UInt8] = []
    result.reserveCapacity(bytes.count + 1024)
    var done = 0
    for (index, token) in tokens.enumerated() {
      guard let new = replaced[index] else { continue }
      result += bytes[done..<token.range.lowerBound]
      result += new.utf8
      done = token.range.upperBound
    }
    result += bytes[done...]
    return String(decoding: result, as: UTF8.self)
  }

  func isMark(_ index: Int, _ mark: String) -> Bool {
    tokens.indices.contains(index) && tokens[index].kind == .mark && tokens[index].spelling == mark
  }

  /// The index of the bracket that closes the one at `open`, or nil.
  func closing(_ open: Int) -> Int? {
    let pairs = ["(": ")", "[": "]", "{": "}"]
    guard let end = pairs[tokens[open].spelling] else { return nil }
    let start = tokens[open].spelling
    var depth = 0
    for index in open..<tokens.count where tokens[index].kind == .mark {
      if tokens[index].spelling == start { depth += 1 }
      if tokens[index].spelling == end { depth -= 1 }
      if depth == 0 { return index }
    }
    return nil
  }
}

private struct TokenReader {
  let bytes: [UInt8]
  var at = 0
  var line = 1
  var isLineStart = true

  init(bytes: [UInt8]) {
    self.bytes = bytes
  }

  mutating func readAll() -> [Token] {
    var tokens: [Token] = []
    while at < bytes.count {
      let byte = bytes[at]
      if byte == UInt8(ascii: "\n") {
        line += 1
        isLineStart = true
        at += 1
      } else if byte == 0x20 || (9...13).contains(byte) {
        at += 1
      } else {
        tokens.append(next(byte))
      }
    }
    return tokens
  }

  private mutating func next(_ byte: UInt8) -> Token {
    let start = at
    let startLine = line
    let kind: Token.Kind
    if byte == UInt8(ascii: "#") && isLineStart {
      kind = .directive
      readDirective()
    } else if isWordByte(byte) {
      kind = (48...57).contains(byte) ? .number : .word
      readWord(isNumber: kind == .number)
    } else if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "'") {
      kind = .text
      readQuoted(byte)
    } else {
      kind = .mark
      at += 1
    }
    isLineStart = false
    let spelling = String(decoding: bytes[start..<at], as: UTF8.self)
    return Token(kind: kind, range: start..<at, line: startLine, spelling: spelling)
  }

  private func isWordByte(_ byte: UInt8) -> Bool {
    byte == UInt8(ascii: "_") || (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte) || byte > 127
  }

  /// To the end of the line. A marker `# 12 "file"` says what the next line's number is.
  private mutating func readDirective() {
    let start = at
    while at < bytes.count && bytes[at] != UInt8(ascii: "\n") { at += 1 }
    let words = String(decoding: bytes[start..<at], as: UTF8.self).split(separator: " ")
    if words.count > 2, words[0] == "#", let next = Int(words[1]) { line = next - 1 }
  }

  private mutating func readWord(isNumber: Bool) {
    while at < bytes.count {
      let byte = bytes[at]
      let isSign = byte == UInt8(ascii: "+") || byte == UInt8(ascii: "-")
      let isExponent = at > 0 && [101, 69, 112, 80].contains(bytes[at - 1])
      guard isWordByte(byte) || (isNumber && (byte == UInt8(ascii: ".") || (isSign && isExponent))) else { return }
      at += 1
    }
  }

  private mutating func readQuoted(_ quote: UInt8) {
    at += 1
    while at < bytes.count && bytes[at] != quote && bytes[at] != UInt8(ascii: "\n") {
      at += bytes[at] == UInt8(ascii: "\\") ? 2 : 1
    }
    at = min(at + 1, bytes.count)
  }
}
