import CHeadrace
import Metal

@_cdecl("hr_heap_create")
public func hr_heap_create(
  _ device: hr_handle, _ byteLength: UInt64, _ storage: UInt32, _ heap: UnsafeMutablePointer<hr_handle>?,
  _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let out = try need(heap, "heap")
    guard storage == UInt32(HR_SHARED) || storage == UInt32(HR_PRIVATE) else {
      throw Failure(Status.invalid, "storage \(storage) is neither shared (\(HR_SHARED)) nor private (\(HR_PRIVATE))")
    }
    let length = try count(byteLength, "byte_length")
    let device = try handles.find(device, as: Device.self)
    try device.checkAlive()
    let made = try Heap(device: device, byteLength: length, isPrivate: storage == UInt32(HR_PRIVATE))
    out.pointee = try handles.insert(made, device: device)
  }
}

@_cdecl("hr_address_table_create")
public func hr_address_table_create(
  _ device: hr_handle, _ buffers: UnsafePointer<hr_handle>?, _ offsets: UnsafePointer<Double>?, _ count: UInt32,
  _ table: UnsafeMutablePointer<hr_handle>?, _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let out = try need(table, "table")
    guard let buffers, let offsets, count > 0, count <= Buffer.maxTableEntries else {
      throw Failure(
        Status.invalid, "an address table of \(count) buffers; 1 to \(Buffer.maxTableEntries) are allowed, with offsets")
    }
    let device = try handles.find(device, as: Device.self)
    try device.checkAlive()
    var found: [Buffer] = []
    var starts: [Int] = []
    for index in 0..<Int(count) {
      found.append(try handles.find(buffers[index], as: Buffer.self))
      guard let start = wholeNumber(offsets[index]) else {
        throw Failure(Status.invalid, "offset \(offsets[index]) of entry \(index) is not a whole number of bytes")
      }
      starts.append(start)
    }
    let made = try Buffer.makeAddressTable(device: device, buffers: found, offsets: starts)
    out.pointee = try handles.insert(made, device: device)
  }
}
