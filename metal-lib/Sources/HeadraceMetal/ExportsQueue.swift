import CHeadrace

@_cdecl("hr_queue_create")
public func hr_queue_create(
  _ device: hr_handle, _ queue: UnsafeMutablePointer<hr_handle>?, _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let out = try need(queue, "queue")
    let device = try handles.find(device, as: Device.self)
    try device.checkAlive()
    let made = Queue(device: device)
    let handle = try handles.insert(made, device: device)
    made.opened(as: handle)
    out.pointee = handle
  }
}

@_cdecl("hr_queue_submit")
public func hr_queue_submit(
  _ queue: hr_handle, _ submission: UnsafePointer<hr_submission>?, _ ticket: Double,
  _ ended: UnsafeMutablePointer<hr_completion>?, _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  exportStatus(error) { () throws(Failure) in
    let queue = try handles.find(queue, as: Queue.self)
    guard let submission else { throw Failure(Status.invalid, "argument submission is NULL") }
    guard let row = try queue.submit(submission.pointee, ticket: ticket, givesRow: ended != nil) else {
      return Status.ok
    }
    ended?.pointee = row
    return 1
  }
}

@_cdecl("hr_queue_cancel")
public func hr_queue_cancel(_ queue: hr_handle, _ ticket: Double, _ status: hr_status) -> hr_status {
  export(nil) { () throws(Failure) in
    try handles.find(queue, as: Queue.self).cancel(ticket: ticket, status: status)
  }
}

@_cdecl("hr_queue_error")
public func hr_queue_error(
  _ queue: hr_handle, _ ticket: Double, _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let out = try need(error, "error")
    _ = try handles.find(queue, as: Queue.self).failure(of: ticket).fill(out)
  }
}
