import CHeadrace
import Foundation

#if !canImport(ObjectiveC)
  /// Only Objective-C has autoreleased objects.
  func autoreleasepool<R>(invoking body: () -> R) -> R { body() }
#endif

/// Runs the body of an exported function: in an autorelease pool, since the caller's thread may have none, and with its
/// failure turned into status and text.
func export(_ error: UnsafeMutablePointer<hr_error>?, _ body: () throws(Failure) -> Void) -> hr_status {
  exportStatus(error) { () throws(Failure) in
    try body()
    return Status.ok
  }
}

/// ``export`` for a function that returns a count.
func exportStatus(_ out: UnsafeMutablePointer<hr_error>?, _ body: () throws(Failure) -> hr_status) -> hr_status {
  autoreleasepool {
    do throws(Failure) {
      return try body()
    } catch {
      return error.fill(out)
    }
  }
}

/// An argument that must be there.
func need<T>(_ pointer: UnsafeMutablePointer<T>?, _ name: String) throws(Failure) -> UnsafeMutablePointer<T> {
  guard let pointer else { throw Failure(Status.invalid, "argument \(name) is NULL") }
  return pointer
}

/// The text of a C string that must be there, and be UTF-8.
func text(_ pointer: UnsafePointer<CChar>?, _ name: String) throws(Failure) -> String {
  guard let pointer else { throw Failure(Status.invalid, "argument \(name) is NULL") }
  guard let text = String(validatingCString: pointer) else {
    throw Failure(Status.invalid, "argument \(name) is not UTF-8")
  }
  return text
}
