/// Waiters by value, the lowest first, and among equal ones the first that came.
struct WaiterHeap {
  struct Entry {
    let value: UInt64
    let number: Int
    let waiter: any Waiter
    let token: Int

    func isBefore(_ other: Entry) -> Bool {
      value != other.value ? value < other.value : number < other.number
    }
  }

  private struct Key: Hashable {
    let waiter: ObjectIdentifier
    let token: Int
  }

  private var entries: [Entry] = []
  private var number = 0
  /// Who still waits. Entries of others are dropped when they come to the top, or are more than half.
  private var waiting: Set<Key> = []

  var lowest: UInt64? { entries.first?.value }

  mutating func insert(value: UInt64, waiter: any Waiter, token: Int) {
    number += 1
    let entry = Entry(value: value, number: number, waiter: waiter, token: token)
    waiting.insert(Self.key(entry))
    entries.append(entry)
    siftUp(entries.count - 1)
  }

  /// Drops a waiter; nothing where it was woken already.
  mutating func forget(_ waiter: any Waiter, token: Int) {
    waiting.remove(Key(waiter: ObjectIdentifier(waiter), token: token))
    guard entries.count > 2 * waiting.count else { return }
    // In order, an array is a heap.
    entries = entries.filter { waiting.contains(Self.key($0)) }.sorted { $0.isBefore($1) }
  }

  /// Takes out who waits for `value` or less.
  mutating func removeReached(_ value: UInt64) -> [Entry] {
    var reached: [Entry] = []
    while let first = entries.first, first.value <= value {
      removeFirst()
      if waiting.remove(Self.key(first)) != nil { reached.append(first) }
    }
    return reached
  }

  mutating func removeAll() -> [Entry] { removeReached(.max) }

  private static func key(_ entry: Entry) -> Key {
    Key(waiter: ObjectIdentifier(entry.waiter), token: entry.token)
  }

  private mutating func removeFirst() {
    let last = entries.removeLast()
    guard !entries.isEmpty else { return }
    entries[0] = last
    siftDown(0)
  }

  private mutating func siftUp(_ start: Int) {
    var at = start
    while at > 0 {
      let parent = (at - 1) / 2
      guard entries[at].isBefore(entries[parent]) else { return }
      entries.swapAt(at, parent)
      at = parent
    }
  }

  private mutating func siftDown(_ start: Int) {
    var at = start
    while true {
      var least = at
      for child in [2 * at + 1, 2 * at + 2] where child < entries.count && entries[child].isBefore(entries[least]) {
        least = child
      }
      if least == at { return }
      entries.swapAt(at, least)
      at = least
    }
  }
}
