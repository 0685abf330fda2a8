import CHeadrace
import Metal

@_cdecl("hr_library_create")
public func hr_library_create(
  _ device: hr_handle, _ source: UnsafePointer<CChar>?, _ macros: UnsafePointer<CChar>?, _ language: UInt32,
  _ library: UnsafeMutablePointer<hr_handle>?, _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let out = try need(library, "library")
    let source = try text(source, "source")
    let macros = macros == nil ? "" : try text(macros, "macros")
    let device = try handles.find(device, as: Device.self)
    let made = try Library.compile(device: device, source: source, macros: macros, language: language)
    out.pointee = try handles.insert(made, device: device)
  }
}

@_cdecl("hr_pipeline_create")
public func hr_pipeline_create(
  _ library: hr_handle, _ function: UnsafePointer<CChar>?, _ constants: UnsafePointer<hr_constant>?, _ count: UInt32,
  _ archive: UnsafePointer<CChar>?, _ pipeline: UnsafeMutablePointer<hr_handle>?,
  _ info: UnsafeMutablePointer<hr_pipeline_info>?, _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let out = try need(pipeline, "pipeline")
    let name = try text(function, "function")
    if count > 0, constants == nil { throw Failure(Status.invalid, "\(count) constants are said to be there, and the pointer is NULL") }
    let path = archive == nil ? nil : try text(archive, "archive")
    let library = try handles.find(library, as: Library.self)
    let made = try Pipeline.make(
      library: library, function: name, constants: Array(UnsafeBufferPointer(start: constants, count: Int(count))), archive: path)
    out.pointee = try handles.insert(made, device: library.device)
    info?.pointee = made.info
  }
}

@_cdecl("hr_matmul_create")
public func hr_matmul_create(
  _ device: hr_handle, _ inner: UInt32, _ outputs: UInt32, _ outputStride: UInt32, _ type: UInt32, _ outputType: UInt32,
  _ accumulate: UInt32, _ pipeline: UnsafeMutablePointer<hr_handle>?, _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let out = try need(pipeline, "pipeline")
    let device = try handles.find(device, as: Device.self)
    let made = try Product.make(
      device: device, inner: inner, outputs: outputs, outputStride: outputStride, type: type, outputType: outputType,
      accumulate: accumulate)
    out.pointee = try handles.insert(made, device: device)
  }
}

@_cdecl("hr_sequence_create")
public func hr_sequence_create(
  _ device: hr_handle, _ dispatches: UnsafePointer<hr_dispatch>?, _ dispatchCount: UInt32,
  _ bindings: UnsafePointer<hr_binding>?, _ bindingCount: UInt32, _ constants: UnsafePointer<UInt8>?,
  _ constantsLength: UInt32, _ sequence: UnsafeMutablePointer<hr_handle>?, _ error: UnsafeMutablePointer<hr_error>?
) -> hr_status {
  export(error) { () throws(Failure) in
    let out = try need(sequence, "sequence")
    let arrays = [("dispatches", dispatchCount, dispatches == nil), ("bindings", bindingCount, bindings == nil), ("constants", constantsLength, constants == nil)]
    for (name, count, isMissing) in arrays where count > 0 && isMissing {
      throw Failure(Status.invalid, "\(count) \(name) are said to be there, and the pointer is NULL")
    }
    let device = try handles.find(device, as: Device.self)
    let made = try Sequence(
      device: device, dispatches: UnsafeBufferPointer(start: dispatches, count: Int(dispatchCount)),
      bindings: UnsafeBufferPointer(start: bindings, count: Int(bindingCount)),
      constants: UnsafeBufferPointer(start: constants, count: Int(constantsLength)))
    out.pointee = try handles.insert(made, device: device)
  }
}
