import XCTest

@testable import HeadraceMetal

final class RoundingTests: XCTestCase {
  func testRoundUpIsTheLeastMultipleThatIsNotLess() {
    for unit in [1, 2, 4096, 16384, 1 << 21] {
      var values = Array(0...3) + [unit - 1, unit, unit + 1, 2 * unit - 1, 5 * unit + 3]
      values += (0..<200).map { _ in Int.random(in: 0...(1 << 50)) }
      for value in values {
        let rounded = roundUp(value, to: unit)
        XCTAssertNotNil(rounded)
        guard let rounded else { continue }
        XCTAssertEqual(rounded % unit, 0)
        XCTAssert(rounded >= value && rounded - value < unit, "\(value) to \(unit) gave \(rounded)")
      }
    }
  }

  func testRoundUpNearTheLargestNumber() {
    let last = Int.max & ~16383
    XCTAssertEqual(roundUp(last, to: 16384), last)
    XCTAssertEqual(roundUp(last - 1, to: 16384), last)
    for over in [1, 2, 5000, 16382, 16383] { XCTAssertNil(roundUp(last + over, to: 16384)) }
  }

  func testAWindowHoldsItsRangeInWholePages() throws {
    let page = 16384
    for offset in [0, 1, page - 1, page, page + 1, 7 * page + 99, Int.random(in: 0...(1 << 50))] {
      for length in [1, page - 1, page, page + 1, 3 * page, Int.random(in: 1...(1 << 50))] {
        let window = try XCTUnwrap(Window(offset: offset, byteLength: length, pageSize: page))
        XCTAssertEqual(window.start % page, 0)
        XCTAssertEqual(window.byteLength % page, 0)
        XCTAssertEqual(window.start + window.offset, offset)
        XCTAssert(window.offset < page)
        XCTAssert(window.offset + length <= window.byteLength)
        XCTAssert(window.byteLength - (window.offset + length) < page)
      }
    }
    XCTAssertNil(Window(offset: 5, byteLength: .max - 5, pageSize: page))
    XCTAssertNil(Window(offset: .max - page, byteLength: 3 * page, pageSize: page))
  }

  func testWholeNumbers() {
    XCTAssertEqual(wholeNumber(0), 0)
    XCTAssertEqual(wholeNumber(9_007_199_254_740_991), (1 << 53) - 1)
    for bad in [-1, 0.5, 9_007_199_254_740_992, .nan, .infinity, -.infinity, 1e300] { XCTAssertNil(wholeNumber(bad)) }
  }

  func testContains() {
    XCTAssert(contains(10, 0, 10) && contains(10, 10, 0) && contains(0, 0, 0) && contains(.max, .max, 0))
    for (offset, length) in [(0, 11), (11, 0), (-1, 1), (1, -1), (5, 6), (.max, .max), (.max, 1), (1, .max)] {
      XCTAssertFalse(contains(10, offset, length), "\(offset), \(length)")
    }
  }

  func testFifo() {
    var fifo = Fifo<Int>()
    var next = 0
    var expected = 0
    for round in 0..<300 {
      for _ in 0..<(round % 50) * 3 {
        fifo.append(next)
        next += 1
      }
      for _ in 0..<(round % 41) * 3 {
        guard let value = fifo.popFirst() else { break }
        XCTAssertEqual(value, expected)
        expected += 1
      }
      XCTAssertEqual(fifo.count, next - expected)
      XCTAssertEqual(fifo.first, fifo.isEmpty ? nil : expected)
    }
    fifo.removeAll { $0 % 2 == 0 }
    while let value = fifo.popFirst() { XCTAssertEqual(value % 2, 1) }
  }

  func testTextIsCutBetweenCharacters() {
    func filled(_ text: String, _ room: Int) -> String {
      var bytes = [UInt8](repeating: 9, count: room)
      bytes.withUnsafeMutableBytes { fillText(text, $0) }
      XCTAssertEqual(bytes.last, 0)
      return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
    XCTAssertEqual(filled("abc", 4), "abc")
    XCTAssertEqual(filled("abcd", 4), "abc")
    XCTAssertEqual(filled("aéé", 5), "aé")
    XCTAssertEqual(filled("a\nb\r\nc", 10), "a b c")
  }
}
