import CHeadrace
import Metal
import MetalPerformanceShaders

/// A matrix product by Metal Performance Shaders, of fixed shape but for its rows: y = x * transposed w, or added to y.
final class Product: Launchable, @unchecked Sendable {  // Nothing of it changes.
  /// Elements of a row, and rows; products of two stay far below 2^63.
  private static let most = 1 << 28

  struct Shape: Sendable {
    let inner: Int
    let outputs: Int
    /// Elements from one row of y to the next.
    let outputStride: Int
    let type: MPSDataType
    let outputType: MPSDataType
    let accumulates: Bool
  }

  let shape: Shape

  private init(device: Device, shape: Shape) {
    self.shape = shape
    super.init(name: "matmul of [T, \(shape.inner)] and [\(shape.outputs), \(shape.inner)]", device: device)
  }

  static func isSupported(by metal: any MTLDevice) -> Bool { MPSSupportsMTLDevice(metal) }

  /// HR_INVALID, HR_UNSUPPORTED, HR_DEVICE_LOST.
  static func make(
    device: Device, inner: UInt32, outputs: UInt32, outputStride: UInt32, type: UInt32, outputType: UInt32,
    accumulate: UInt32
  ) throws(Failure) -> Product {
    try device.checkAlive()
    guard isSupported(by: device.metal) else {
      throw Failure(Status.unsupported, "\(device.metal.name) has no Metal Performance Shaders")
    }
    for (name, value, least) in [("inner", inner, 1), ("outputs", outputs, 1), ("output_stride", outputStride, outputs)] {
      guard value >= least, value <= most else {
        throw Failure(Status.invalid, "matmul: \(name) \(value) must be in \(least) to \(most)")
      }
    }
    let shape = Shape(
      inner: Int(inner), outputs: Int(outputs), outputStride: Int(outputStride), type: try dataType(type),
      outputType: try dataType(outputType), accumulates: accumulate != 0)
    guard shape.outputType == .float32 || shape.outputType == shape.type else {
      throw Failure(Status.invalid, "matmul: results are 32-bit floats, or of the inputs' type")
    }
    return Product(device: device, shape: shape)
  }

  private static func dataType(_ raw: UInt32) throws(Failure) -> MPSDataType {
    switch Int(raw) {
    case HR_F32: return .float32
    case HR_F16: return .float16
    default: throw Failure(Status.invalid, "matmul: there is no element type \(raw)")
    }
  }

  /// A launch for `rows` rows, whose buffers are not checked yet. HR_INVALID, HR_DEVICE_FAILED.
  func launch(rows: UInt32, _ bindings: [Binding], constantsLength: Int) throws(Failure) -> ProductLaunch {
    guard bindings.count == 3, constantsLength == 0 else {
      throw Failure(Status.invalid, "\(name): takes x, w and y, and no constants; given were \(bindings.count) buffers and \(constantsLength) bytes")
    }
    guard rows <= Self.most else { throw Failure(Status.invalid, "\(name): \(rows) rows are above \(Self.most)") }
    if let target = bindings.first(where: { $0.index == 2 }), !target.buffer.isWritable {
      throw Failure(Status.invalid, "\(name): y is written to, and its buffer can only be read")
    }
    return ProductLaunch(self, rows: Int(rows))
  }
}

/// A product for some number of rows. It keeps what Metal Performance Shaders need until they have run.
final class ProductLaunch: @unchecked Sendable {  // The kernel is used with the lock held.
  let arguments: [BufferArgument]
  private let product: Product
  private let rows: Int
  /// Nil for no rows. One is for one thread at a time.
  private let kernel: Locked<MPSMatrixMultiplication?>

  init(_ product: Product, rows: Int) {
    let shape = product.shape
    self.product = product
    self.rows = rows
    let (size, outputSize) = (bytes(of: shape.type), bytes(of: shape.outputType))
    let inputLength = rows * shape.inner * size
    let resultLength = rows == 0 ? 0 : ((rows - 1) * shape.outputStride + shape.outputs) * outputSize
    arguments = [
      BufferArgument(name: "x", index: 0, byteLength: inputLength, alignment: size, isWhole: true),
      BufferArgument(name: "w", index: 1, byteLength: shape.outputs * shape.inner * size, alignment: size, isWhole: true),
      BufferArgument(name: "y", index: 2, byteLength: resultLength, alignment: outputSize, isWhole: true),
    ]
    kernel = Locked(
      rows == 0
        ? nil
        : MPSMatrixMultiplication(
          device: product.device.metal, transposeLeft: false, transposeRight: true, resultRows: rows,
          resultColumns: shape.outputs, interiorColumns: shape.inner, alpha: 1, beta: shape.accumulates ? 1 : 0))
  }

  /// No encoder of `commands` is open.
  func encode(into commands: any MTLCommandBuffer, _ bindings: [(Binding, offset: Int)]) {
    let shape = product.shape
    func matrix(_ index: Int, rows: Int, columns: Int, stride: Int, _ type: MPSDataType) -> MPSMatrix? {
      guard let (binding, offset) = bindings.first(where: { $0.0.index == index }) else { return nil }
      let descriptor = MPSMatrixDescriptor(rows: rows, columns: columns, rowBytes: stride * bytes(of: type), dataType: type)
      return MPSMatrix(buffer: binding.buffer.metal, offset: offset, descriptor: descriptor)
    }
    kernel.withLock { kernel in
      guard let kernel,
        let x = matrix(0, rows: rows, columns: shape.inner, stride: shape.inner, shape.type),
        let w = matrix(1, rows: shape.outputs, columns: shape.inner, stride: shape.inner, shape.type),
        let y = matrix(2, rows: rows, columns: shape.outputs, stride: shape.outputStride, shape.outputType)
      else { return }
      kernel.encode(commandBuffer: commands, leftMatrix: x, rightMatrix: w, resultMatrix: y)
    }
  }
}

private func bytes(of type: MPSDataType) -> Int { type == .float16 ? 2 : 4 }
