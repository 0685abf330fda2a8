import CHeadrace

/// The codes of `headrace.h`, in the type that the ABI returns.
enum Status {
  static let ok = hr_status(HR_OK)
  static let invalid = hr_status(HR_INVALID)
  static let closed = hr_status(HR_CLOSED)
  static let unsupported = hr_status(HR_UNSUPPORTED)
  static let outOfMemory = hr_status(HR_OUT_OF_MEMORY)
  static let outOfRange = hr_status(HR_OUT_OF_RANGE)
  static let io = hr_status(HR_IO)
  static let shortRead = hr_status(HR_SHORT_READ)
  static let fileChanged = hr_status(HR_FILE_CHANGED)
  static let notAFile = hr_status(HR_NOT_A_FILE)
  static let cancelled = hr_status(HR_CANCELLED)
  static let timedOut = hr_status(HR_TIMED_OUT)
  static let deviceFailed = hr_status(HR_DEVICE_FAILED)
  static let deviceLost = hr_status(HR_DEVICE_LOST)
  static let declined = hr_status(HR_DECLINED)
  static let compileFailed = hr_status(HR_COMPILE_FAILED)
  static let corrupt = hr_status(HR_CORRUPT)
}
