import CHeadrace
import Foundation

@_cdecl("hr_abi_version")
public func hr_abi_version() -> UInt32 { HR_ABI_VERSION }

@_cdecl("hr_struct_sizes")
public func hr_struct_sizes(_ sizes: UnsafeMutablePointer<UInt32>?, _ capacity: UInt32) -> UInt32 {
  let all = [
    MemoryLayout<hr_error>.size, MemoryLayout<hr_device_info>.size, MemoryLayout<hr_device_options>.size,
    MemoryLayout<hr_buffer_info>.size, MemoryLayout<hr_request>.size, MemoryLayout<hr_dispatch>.size,
    MemoryLayout<hr_binding>.size, MemoryLayout<hr_offset>.size, MemoryLayout<hr_submission>.size,
    MemoryLayout<hr_completion>.size, MemoryLayout<hr_constant>.size, MemoryLayout<hr_pipeline_info>.size,
  ]
  for (index, size) in all.prefix(Int(capacity)).enumerated() { sizes?[index] = UInt32(size) }
  return UInt32(all.count)
}

@_cdecl("hr_clock_ms")
public func hr_clock_ms() -> Double { clockMs() }

@_cdecl("hr_device_count")
public func hr_device_count() -> UInt32 {
  autoreleasepool { UInt32(metalDevices().count) }
}

@_cdecl("hr_device_open")
public func hr_device_open(
  _ ordinal: UInt32, _ options: UnsafePointer<hr_device_options>?, _ device: UnsafeMutablePointer<hr_handle>?,
  _ wakeDescriptor: UnsafeMutablePointer<Int32>?, _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let out = try need(device, "device")
    let wake = try need(wakeDescriptor, "wake_fd")
    let opened = try Device.open(ordinal: ordinal, options: options?.pointee ?? hr_device_options())
    let handle: hr_handle
    do throws(Failure) {
      handle = try handles.insert(opened, device: nil)
    } catch {
      opened.close()
      throw error
    }
    opened.opened(as: handle)
    wake.pointee = opened.completions.wakeDescriptor
    out.pointee = handle
  }
}

@_cdecl("hr_device_info_get")
public func hr_device_info_get(
  _ device: hr_handle, _ info: UnsafeMutablePointer<hr_device_info>?, _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    try need(info, "info").pointee = try handles.find(device, as: Device.self).info()
  }
}

@_cdecl("hr_device_poll")
public func hr_device_poll(
  _ device: hr_handle, _ completions: UnsafeMutablePointer<hr_completion>?, _ capacity: UInt32
) -> hr_status {
  exportStatus(nil) { () throws(Failure) in
    let ring = try handles.findDevice(device).completions
    return hr_status(try ring.poll(completions, capacity: Int(capacity)))
  }
}

@_cdecl("hr_device_wait")
public func hr_device_wait(
  _ device: hr_handle, _ completions: UnsafeMutablePointer<hr_completion>?, _ capacity: UInt32, _ timeoutMs: UInt32
) -> hr_status {
  exportStatus(nil) { () throws(Failure) in
    let ring = try handles.findDevice(device).completions
    return hr_status(try ring.wait(completions, capacity: Int(capacity), timeoutMs: Double(timeoutMs)))
  }
}

@_cdecl("hr_device_ping")
public func hr_device_ping(_ device: hr_handle) -> hr_status {
  export(nil) { () throws(Failure) in
    var row = hr_completion()
    row.flags = Double(HR_ENDED | HR_QUIET)
    row.submitted_ms = clockMs()
    row.ended_ms = row.submitted_ms
    try handles.find(device, as: Device.self).completions.push(row)
  }
}

@_cdecl("hr_device_open_handles")
public func hr_device_open_handles(_ device: hr_handle) -> hr_status {
  exportStatus(nil) { () throws(Failure) in
    hr_status(handles.count(of: try handles.find(device, as: Device.self)))
  }
}

@_cdecl("hr_close")
public func hr_close(_ any: hr_handle) -> hr_status {
  export(nil) { () throws(Failure) in
    let removed = try handles.remove(any)
    // Queues first: what waits for an event of a closed device is cancelled with its queue.
    for resource in removed where resource is Queue { resource.close() }
    for resource in removed where !(resource is Queue) { resource.close() }
  }
}
