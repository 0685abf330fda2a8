/// Values for function constants, and the types that they can have.
import Foundation

/// The types that a function constant can have, and their names.
public enum MTLDataType: UInt, Sendable {
  case none = 0
  case `struct` = 1
  case array = 2
  case float = 3
  case float2 = 4
  case float3 = 5
  case float4 = 6
  case half = 16
  case half2 = 17
  case half3 = 18
  case half4 = 19
  case int = 29
  case int2 = 30
  case int3 = 31
  case int4 = 32
  case uint = 33
  case uint2 = 34
  case uint3 = 35
  case uint4 = 36
  case short = 37
  case short2 = 38
  case short3 = 39
  case short4 = 40
  case ushort = 41
  case ushort2 = 42
  case ushort3 = 43
  case ushort4 = 44
  case char = 45
  case char2 = 46
  case char3 = 47
  case char4 = 48
  case uchar = 49
  case uchar2 = 50
  case uchar3 = 51
  case uchar4 = 52
  case bool = 53
  case bool2 = 54
  case bool3 = 55
  case bool4 = 56
  case pointer = 60
  case long = 81
  case long2 = 82
  case long3 = 83
  case long4 = 84
  case ulong = 85
  case ulong2 = 86
  case ulong3 = 87
  case ulong4 = 88
  case bfloat = 121
  case bfloat2 = 122
  case bfloat3 = 123
  case bfloat4 = 124
}

open class MTLFunctionConstantValues: NSObject, NSCopying {
  /// A value's bytes, and how they are to be read.
  struct Value: Hashable, Sendable {
    let type: MTLDataType
    let bytes: [UInt8]
  }
  private(set) var byIndex: [Int: Value] = [:]
  private(set) var byName: [String: Value] = [:]

  open func setConstantValue(_ value: UnsafeRawPointer, type: MTLDataType, index: Int) {
    byIndex[index] = Self.read(value, type)
  }

  open func setConstantValue(_ value: UnsafeRawPointer, type: MTLDataType, withName name: String) {
    byName[name] = Self.read(value, type)
  }

  open func reset() {
    byIndex = [:]
    byName = [:]
  }

  open func copy(with zone: NSZone? = nil) -> Any {
    let copy = MTLFunctionConstantValues()
    copy.byIndex = byIndex
    copy.byName = byName
    return copy
  }

  private static func read(_ value: UnsafeRawPointer, _ type: MTLDataType) -> Value {
    guard let scalar = ScalarType(type) else {
      trap("setConstantValue: the stand-in knows scalar constants only, and this one is of MTLDataType \(type.rawValue)")
    }
    return Value(type: type, bytes: Array(UnsafeRawBufferPointer(start: value, count: scalar.byteLength)))
  }
}

/// The scalar types of function constants, as the shading language names them.
enum ScalarType: String {
  case bool, char, uchar, short, ushort, int, uint, long, ulong, half, bfloat, float

  init?(_ type: MTLDataType) {
    switch type {
    case .bool: self = .bool
    case .char: self = .char
    case .uchar: self = .uchar
    case .short: self = .short
    case .ushort: self = .ushort
    case .int: self = .int
    case .uint: self = .uint
    case .long: self = .long
    case .ulong: self = .ulong
    case .half: self = .half
    case .bfloat: self = .bfloat
    case .float: self = .float
    default: return nil
    }
  }

  var dataType: MTLDataType {
    switch self {
    case .bool: .bool
    case .char: .char
    case .uchar: .uchar
    case .short: .short
    case .ushort: .ushort
    case .int: .int
    case .uint: .uint
    case .long: .long
    case .ulong: .ulong
    case .half: .half
    case .bfloat: .bfloat
    case .float: .float
    }
  }

  var byteLength: Int {
    switch self {
    case .bool, .char, .uchar: 1
    case .short, .ushort, .half, .bfloat: 2
    case .int, .uint, .float: 4
    case .long, .ulong: 8
    }
  }
}
