import CHeadrace

@_cdecl("hr_compress")
public func hr_compress(
  _ queue: hr_handle, _ source: UnsafePointer<CChar>?, _ target: UnsafePointer<CChar>?, _ codec: UInt32,
  _ chunkBytes: UInt64, _ ticket: Double, _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let queue = try handles.find(queue, as: Queue.self)
    let source = try text(source, "source")
    let target = try text(target, "target")
    let (_, chunk) = try Compression.check(codec: codec, chunkBytes: chunkBytes)
    let device = queue.device
    try queue.run(ticket: ticket) { ended in
      startCompression(
        device: device, source: source, target: target, codec: codec, chunkBytes: chunk, ended: ended)
    }
  }
}

@_cdecl("hr_compress_progress")
public func hr_compress_progress(
  _ queue: hr_handle, _ ticket: Double, _ bytesDone: UnsafeMutablePointer<Double>?,
  _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let out = try need(bytesDone, "bytes_done")
    out.pointee = Double(try handles.find(queue, as: Queue.self).progress(of: ticket))
  }
}
