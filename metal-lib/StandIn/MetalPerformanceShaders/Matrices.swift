// The part of Metal Performance Shaders that the library uses: matrices, and their product.
@_exported import Foundation
import Metal

/// Raw values are Apple's.
public enum MPSDataType: UInt32, Sendable {
  case float32 = 0x1000_0020
  case float16 = 0x1000_0010

  var byteLength: Int { self == .float32 ? 4 : 2 }
}

public func MPSSupportsMTLDevice(_ device: (any MTLDevice)?) -> Bool { device != nil }

public final class MPSMatrixDescriptor: NSObject {
  public let rows: Int
  public let columns: Int
  public let rowBytes: Int
  public let dataType: MPSDataType

  public init(rows: Int, columns: Int, rowBytes: Int, dataType: MPSDataType) {
    if rows <= 0 || columns <= 0 { standInTrap("a matrix of \(rows) x \(columns) elements has none") }
    if rowBytes % dataType.byteLength != 0 { standInTrap("rowBytes \(rowBytes) is no multiple of an element's \(dataType.byteLength)") }
    if rowBytes < columns * dataType.byteLength { standInTrap("rowBytes \(rowBytes) is less than \(columns) elements take") }
    self.rows = rows
    self.columns = columns
    self.rowBytes = rowBytes
    self.dataType = dataType
  }
}

public final class MPSMatrix: NSObject {
  public let data: any MTLBuffer
  public let offset: Int
  public let descriptor: MPSMatrixDescriptor

  public init(buffer: any MTLBuffer, offset: Int, descriptor: MPSMatrixDescriptor) {
    let size = descriptor.dataType.byteLength
    let needed = (descriptor.rows - 1) * descriptor.rowBytes + descriptor.columns * size
    if offset < 0 || offset > buffer.length || needed > buffer.length - offset {
      standInTrap("a matrix of \(needed) bytes from \(offset) on is outside the buffer's \(buffer.length)")
    }
    if offset % size != 0 { standInTrap("a matrix from \(offset) on has elements of \(size) bytes") }
    data = buffer
    self.offset = offset
    self.descriptor = descriptor
  }
}

public final class MPSMatrixMultiplication: NSObject {
  private let transposes: (left: Bool, right: Bool)
  private let rows: Int
  private let columns: Int
  private let interior: Int
  private let alpha: Float
  private let beta: Float

  public init(
    device: any MTLDevice, transposeLeft: Bool, transposeRight: Bool, resultRows: Int, resultColumns: Int,
    interiorColumns: Int, alpha: Double, beta: Double
  ) {
    if resultRows <= 0 || resultColumns <= 0 || interiorColumns <= 0 { standInTrap("a product of matrices has no elements") }
    transposes = (transposeLeft, transposeRight)
    rows = resultRows
    columns = resultColumns
    interior = interiorColumns
    self.alpha = Float(alpha)
    self.beta = Float(beta)
  }

  public func encode(commandBuffer: any MTLCommandBuffer, leftMatrix: MPSMatrix, rightMatrix: MPSMatrix, resultMatrix: MPSMatrix) {
    check("left", leftMatrix, transposes.left ? (interior, rows) : (rows, interior))
    check("right", rightMatrix, transposes.right ? (columns, interior) : (interior, columns))
    check("result", resultMatrix, (rows, columns))
    let types = [leftMatrix, rightMatrix, resultMatrix].map(\.descriptor.dataType)
    if types[0] != types[1] || (types[2] != types[0] && types[2] != .float32) { standInTrap("a product of \(types[0]) and \(types[1]) into \(types[2])") }
    let product = StandInProduct(
      left: place(leftMatrix), right: place(rightMatrix), result: place(resultMatrix), transposesLeft: transposes.left,
      transposesRight: transposes.right, rows: rows, columns: columns, interior: interior, alpha: alpha, beta: beta)
    product.encode(commandBuffer)
  }

  private func check(_ what: String, _ matrix: MPSMatrix, _ needed: (rows: Int, columns: Int)) {
    let (descriptor, name) = (matrix.descriptor, "the \(what) matrix")
    if descriptor.rows < needed.rows || descriptor.columns < needed.columns {
      standInTrap("\(name) of \(descriptor.rows) x \(descriptor.columns) is less than \(needed.rows) x \(needed.columns)")
    }
  }

  private func place(_ matrix: MPSMatrix) -> StandInMatrix {
    StandInMatrix(
      buffer: matrix.data, offset: matrix.offset, rowBytes: matrix.descriptor.rowBytes,
      isHalf: matrix.descriptor.dataType == .float16)
  }
}
