import CHeadrace

@_cdecl("hr_file_open")
public func hr_file_open(
  _ device: hr_handle, _ path: UnsafePointer<CChar>?, _ flags: UInt32, _ codec: UInt32,
  _ file: UnsafeMutablePointer<hr_handle>?, _ byteLength: UnsafeMutablePointer<UInt64>?,
  _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let out = try need(file, "file")
    let length = try need(byteLength, "byte_length")
    let device = try handles.find(device, as: Device.self)
    let uncompressed = codec == HR_CODEC_NONE ? 0 : try count(length.pointee, "byte_length")
    let opened = try File(
      device: device, path: try text(path, "path"), flags: flags, codec: codec, uncompressedLength: uncompressed)
    out.pointee = try handles.insert(opened, device: device)
    length.pointee = UInt64(opened.byteLength)
  }
}

@_cdecl("hr_file_length")
public func hr_file_length(
  _ file: hr_handle, _ byteLength: UnsafeMutablePointer<UInt64>?, _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let out = try need(byteLength, "byte_length")
    out.pointee = UInt64(try handles.find(file, as: File.self).currentLength())
  }
}

@_cdecl("hr_file_read")
public func hr_file_read(
  _ file: hr_handle, _ offset: UInt64, _ byteLength: UInt64, _ bytes: UnsafeMutableRawPointer?,
  _ done: UnsafeMutablePointer<UInt64>?, _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let out = try need(done, "done")
    let file = try handles.find(file, as: File.self)
    let from = try count(offset, "offset")
    let length = try count(byteLength, "byte_length")
    out.pointee = 0
    if length == 0 { return }
    guard let bytes else { throw Failure(Status.invalid, "argument bytes is NULL") }
    out.pointee = UInt64(try file.read(offset: from, byteLength: length, into: bytes))
  }
}

@_cdecl("hr_file_preallocate")
public func hr_file_preallocate(
  _ file: hr_handle, _ byteLength: UInt64, _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let file = try handles.find(file, as: File.self)
    let length = try count(byteLength, "byte_length")
    if length > 0 { try file.preallocate(length) }
  }
}

@_cdecl("hr_file_map")
public func hr_file_map(
  _ file: hr_handle, _ offset: UInt64, _ byteLength: UInt64, _ buffer: UnsafeMutablePointer<hr_handle>?,
  _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let out = try need(buffer, "buffer")
    let file = try handles.find(file, as: File.self)
    guard let device = file.owner else { throw Failure.closed("the device") }
    try device.checkAlive()
    let mapped = try file.map(
      offset: try count(offset, "offset"), byteLength: try count(byteLength, "byte_length"), device: device)
    out.pointee = try handles.insert(mapped, device: device)
  }
}

/// A count of bytes, below 2^53 as everywhere. HR_OUT_OF_RANGE.
func count(_ value: UInt64, _ name: String) throws(Failure) -> Int {
  guard value < 1 << 53 else { throw Failure(Status.outOfRange, "\(name) \(value) is not below 2^53") }
  return Int(value)
}
