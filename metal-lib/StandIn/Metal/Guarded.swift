// A lock around a value, the clock, and the end that Apple's API validation makes of a broken rule.
import Foundation

/// A value behind a mutex, with a condition that is broadcast after each change.
final class Guarded<State>: @unchecked Sendable {
  // Sendable because `state` is only touched with the mutex held.
  private var state: State
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let changed = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  init(_ state: sending State) {
    self.state = state
    mutex.initialize(to: pthread_mutex_t())
    pthread_mutex_init(mutex, nil)
    changed.initialize(to: pthread_cond_t())
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(changed, &attributes)
    pthread_condattr_destroy(&attributes)
  }

  deinit {
    pthread_cond_destroy(changed)
    pthread_mutex_destroy(mutex)
    changed.deallocate()
    mutex.deallocate()
  }

  func withLock<R, E: Error>(_ body: (inout State) throws(E) -> R) throws(E) -> R {
    pthread_mutex_lock(mutex)
    defer {
      pthread_cond_broadcast(changed)
      pthread_mutex_unlock(mutex)
    }
    return try body(&state)
  }

  /// Waits until `body` gives a value. Nil after `seconds`, if they are given.
  func wait<R>(seconds: Double? = nil, for body: (inout State) -> R?) -> R? {
    let deadline = seconds.map { hostSeconds() + $0 }
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while true {
      if let value = body(&state) {
        // It may have changed the state on which others wait.
        pthread_cond_broadcast(changed)
        return value
      }
      guard let deadline else {
        pthread_cond_wait(changed, mutex)
        continue
      }
      if hostSeconds() >= deadline { return nil }
      var time = timespec(tv_sec: Int(deadline), tv_nsec: Int((deadline - deadline.rounded(.down)) * 1e9))
      pthread_cond_timedwait(changed, mutex, &time)
    }
  }
}

/// Seconds of the host's monotonic clock, which Metal's times are given in.
func hostSeconds() -> Double {
  var now = timespec()
  clock_gettime(CLOCK_MONOTONIC, &now)
  return Double(now.tv_sec) + Double(now.tv_nsec) * 1e-9
}

/// Ends the process, as Metal's API validation does where a program breaks `rule`.
func trap(_ rule: String) -> Never {
  let text = "Metal stand-in: \(rule)\n"
  text.utf8CString.withUnsafeBytes { bytes in
    _ = write(2, bytes.baseAddress, bytes.count - 1)
  }
  abort()
}
