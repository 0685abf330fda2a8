/// First in, first out, in constant time; the room of what left is given back in large steps.
struct Fifo<Element> {
  private var elements: [Element?] = []
  private var head = 0

  var count: Int { elements.count - head }
  var isEmpty: Bool { count == 0 }
  var first: Element? { head < elements.count ? elements[head] : nil }

  mutating func append(_ element: Element) { elements.append(element) }

  mutating func popFirst() -> Element? {
    guard head < elements.count else { return nil }
    let element = elements[head]
    elements[head] = nil
    head += 1
    if head == elements.count {
      // Most often it runs empty; small arrays keep their room.
      elements.removeAll(keepingCapacity: elements.count <= 4096)
      head = 0
    } else if head >= 1024, head * 2 >= elements.count {
      elements.removeFirst(head)
      head = 0
    }
    return element
  }

  /// Takes out all elements that `condition` holds for.
  mutating func removeAll(where condition: (Element) -> Bool) {
    elements = elements[head...].filter { element in
      if let element { return !condition(element) }
      return false
    }
    head = 0
  }
}
