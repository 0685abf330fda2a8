import CHeadrace
import Metal

@_cdecl("hr_buffer_create")
public func hr_buffer_create(
  _ parent: hr_handle, _ byteLength: UInt64, _ storage: UInt32, _ buffer: UnsafeMutablePointer<hr_handle>?,
  _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let out = try need(buffer, "buffer")
    guard storage == UInt32(HR_SHARED) || storage == UInt32(HR_PRIVATE) else {
      throw Failure(Status.invalid, "storage \(storage) is neither shared (\(HR_SHARED)) nor private (\(HR_PRIVATE))")
    }
    let isPrivate = storage == UInt32(HR_PRIVATE)
    let length = try count(byteLength, "byte_length")
    let parent = try handles.find(parent)
    guard let device = parent as? Device ?? parent.owner else { throw Failure.closed("the device") }
    try device.checkAlive()
    let made = try Buffer.make(in: parent, device: device, byteLength: length, isPrivate: isPrivate)
    out.pointee = try handles.insert(made, device: device)
  }
}

@_cdecl("hr_buffer_info_get")
public func hr_buffer_info_get(
  _ buffer: hr_handle, _ info: UnsafeMutablePointer<hr_buffer_info>?, _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let out = try need(info, "info")
    let buffer = try handles.find(buffer, as: Buffer.self)
    let native = Unmanaged.passUnretained(buffer.metal as AnyObject).toOpaque()
    out.pointee = hr_buffer_info(
      byte_length: UInt64(buffer.byteLength), host_address: UInt64(UInt(bitPattern: buffer.bytes)),
      gpu_address: buffer.metal.gpuAddress + UInt64(buffer.offset),
      native_object: UInt64(UInt(bitPattern: native)))
  }
}

@_cdecl("hr_buffer_check")
public func hr_buffer_check(_ buffer: hr_handle, _ error: UnsafeMutablePointer<hr_error>?) -> hr_status {
  export(error) { () throws(Failure) in try handles.find(buffer, as: Buffer.self).checkFile() }
}

@_cdecl("hr_buffer_advise")
public func hr_buffer_advise(
  _ buffer: hr_handle, _ advice: UInt32, _ offset: UInt64, _ byteLength: UInt64
) -> hr_status {
  export(nil) { () throws(Failure) in
    let buffer = try handles.find(buffer, as: Buffer.self)
    guard advice <= UInt32(HR_DONT_NEED) else { throw Failure(Status.invalid, "advice \(advice) is not known") }
    buffer.advise(Int32(advice), offset: Int(clamping: offset), byteLength: Int(clamping: byteLength))
  }
}

@_cdecl("hr_event_create")
public func hr_event_create(
  _ device: hr_handle, _ event: UnsafeMutablePointer<hr_handle>?, _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let out = try need(event, "event")
    let device = try handles.find(device, as: Device.self)
    try device.checkAlive()
    out.pointee = try handles.insert(try Event(device: device), device: device)
  }
}

@_cdecl("hr_event_signal")
public func hr_event_signal(
  _ event: hr_handle, _ value: UInt64, _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in try handles.find(event, as: Event.self).signal(value) }
}

@_cdecl("hr_event_value")
public func hr_event_value(
  _ event: hr_handle, _ value: UnsafeMutablePointer<UInt64>?, _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    try need(value, "value").pointee = try handles.find(event, as: Event.self).value
  }
}
