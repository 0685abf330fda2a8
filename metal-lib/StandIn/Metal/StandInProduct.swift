// A product of matrices, for the stand-in of Metal Performance Shaders: the only thing in here that Metal has not.
import Foundation

/// Elements of a matrix by rows.
public struct StandInMatrix {
  public let buffer: any MTLBuffer
  public let offset: Int
  public let rowBytes: Int
  public let isHalf: Bool

  public init(buffer: any MTLBuffer, offset: Int, rowBytes: Int, isHalf: Bool) {
    self.buffer = buffer
    self.offset = offset
    self.rowBytes = rowBytes
    self.isHalf = isHalf
  }

  var layout: Layout { Layout(offset: offset, rowBytes: rowBytes, isHalf: isHalf) }

  struct Layout: Sendable {
    let offset: Int
    let rowBytes: Int
    let isHalf: Bool

    func load(_ bytes: UnsafeMutableRawPointer, _ row: Int, _ column: Int) -> Float {
      let at = bytes + offset + row * rowBytes
      return isHalf ? Float(at.load(fromByteOffset: column * 2, as: Float16.self)) : at.load(fromByteOffset: column * 4, as: Float.self)
    }

    func store(_ value: Float, _ bytes: UnsafeMutableRawPointer, _ row: Int, _ column: Int) {
      let at = bytes + offset + row * rowBytes
      if isHalf {
        at.storeBytes(of: Float16(value), toByteOffset: column * 2, as: Float16.self)
      } else {
        at.storeBytes(of: value, toByteOffset: column * 4, as: Float.self)
      }
    }
  }
}

public struct StandInProduct {
  private let matrices: [StandInMatrix]
  private let transposesLeft: Bool
  private let transposesRight: Bool
  private let rows: Int
  private let columns: Int
  private let interior: Int
  private let alpha: Float
  private let beta: Float

  public init(
    left: StandInMatrix, right: StandInMatrix, result: StandInMatrix, transposesLeft: Bool, transposesRight: Bool,
    rows: Int, columns: Int, interior: Int, alpha: Float, beta: Float
  ) {
    matrices = [left, right, result]
    self.transposesLeft = transposesLeft
    self.transposesRight = transposesRight
    self.rows = rows
    self.columns = columns
    self.interior = interior
    self.alpha = alpha
    self.beta = beta
  }

  /// By an encoder of its own. It sums in an order that the rows decide, as nobody may count on the last bits.
  public func encode(_ commandBuffer: any MTLCommandBuffer) {
    guard let commands = commandBuffer as? StandInCommandBuffer else { trap("a command buffer of another kind") }
    if !commands.retainedReferences { trap("a product of matrices in a command buffer that keeps nothing of what it needs") }
    let buffers = matrices.map { StandInBuffer.of($0.buffer, on: commands.owner, "a product of matrices") }
    let (left, right, result) = (matrices[0].layout, matrices[1].layout, matrices[2].layout)
    let (rows, columns, interior, alpha, beta) = (rows, columns, interior, alpha, beta)
    let (transposesLeft, transposesRight, parts) = (transposesLeft, transposesRight, rows > 4 ? 2 : 1)
    commands.openEncoder()
    commands.append(using: buffers) { buffers in
      for row in 0..<rows {
        for column in 0..<columns {
          var sums: (Float, Float) = (0, 0)
          for i in 0..<interior {
            let a = transposesLeft ? left.load(buffers[0].bytes, i, row) : left.load(buffers[0].bytes, row, i)
            let b = transposesRight ? right.load(buffers[1].bytes, column, i) : right.load(buffers[1].bytes, i, column)
            if i % parts == 0 { sums.0 += a * b } else { sums.1 += a * b }
          }
          let before = beta == 0 ? 0 : beta * result.load(buffers[2].bytes, row, column)
          result.store(alpha * (sums.0 + sums.1) + before, buffers[2].bytes, row, column)
        }
      }
    }
    commands.closeEncoder()
  }
}

/// Ends the process as a broken rule of Metal's would.
public func standInTrap(_ message: String) -> Never { trap(message) }
