import CHeadrace
import Foundation

/// The only error inside the library: a status of the ABI, the errno behind it (0 without), and one line of text that
/// names the numbers.
struct Failure: Error, Sendable {
  let status: hr_status
  let osErrno: Int32
  let message: String

  init(_ status: hr_status, _ message: String, osErrno: Int32 = 0) {
    self.status = status
    self.osErrno = osErrno
    self.message = message
  }

  /// A failed system call. HR_IO; HR_OUT_OF_MEMORY for ENOMEM.
  static func io(_ what: String, errno code: Int32) -> Failure {
    let status = code == ENOMEM ? Status.outOfMemory : Status.io
    return Failure(status, "\(what): \(errnoName(code))", osErrno: code)
  }

  /// What Metal or Foundation reported, with domain, code and description.
  static func metal(_ what: String, _ error: any Error, status: hr_status = Status.deviceFailed) -> Failure {
    let error = error as NSError
    return Failure(status, "\(what): \(error.domain) \(error.code): \(error.localizedDescription)")
  }

  static func closed(_ what: String) -> Failure {
    Failure(Status.closed, "\(what) is closed")
  }

  /// Writes the text out, cut where it is too long, and returns the status.
  func fill(_ out: UnsafeMutablePointer<hr_error>?) -> hr_status {
    guard let out else { return status }
    out.pointee.status = status
    out.pointee.os_errno = osErrno
    withUnsafeMutableBytes(of: &out.pointee.message) { fillText(message, $0) }
    return status
  }
}

/// Writes `text` as one line of UTF-8 that ends in 0, cut between characters where `bytes` is too short.
func fillText(_ text: String, _ bytes: UnsafeMutableRawBufferPointer) {
  bytes.initializeMemory(as: UInt8.self, repeating: 0)
  var count = 0
  for character in text {
    let encoded = character.isNewline ? " ".utf8 : String(character).utf8
    if count + encoded.count >= bytes.count { return }
    for byte in encoded {
      bytes[count] = byte
      count += 1
    }
  }
}

/// `EIO` for 5, and so on; `errno 4711` for one that has no name here.
func errnoName(_ code: Int32) -> String {
  switch code {
  case EPERM: "EPERM"
  case ENOENT: "ENOENT"
  case EINTR: "EINTR"
  case EIO: "EIO"
  case ENXIO: "ENXIO"
  case EBADF: "EBADF"
  case EAGAIN: "EAGAIN"
  case ENOMEM: "ENOMEM"
  case EACCES: "EACCES"
  case EFAULT: "EFAULT"
  case EBUSY: "EBUSY"
  case EEXIST: "EEXIST"
  case EXDEV: "EXDEV"
  case ENODEV: "ENODEV"
  case ENOTDIR: "ENOTDIR"
  case EISDIR: "EISDIR"
  case EINVAL: "EINVAL"
  case ENFILE: "ENFILE"
  case EMFILE: "EMFILE"
  case EFBIG: "EFBIG"
  case ENOSPC: "ENOSPC"
  case EROFS: "EROFS"
  case ENAMETOOLONG: "ENAMETOOLONG"
  case ELOOP: "ELOOP"
  case ENOTSUP: "ENOTSUP"
  case EOVERFLOW: "EOVERFLOW"
  case ETIMEDOUT: "ETIMEDOUT"
  case ESTALE: "ESTALE"
  case EDQUOT: "EDQUOT"
  default: "errno \(code)"
  }
}
