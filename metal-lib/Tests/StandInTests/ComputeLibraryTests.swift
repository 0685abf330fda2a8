import Foundation
import Metal
import XCTest

/// What the compiler takes and refuses; function constants; archives.
final class ComputeLibraryTests: XCTestCase {
  let rig = ComputeRig()

  private func refusal(_ source: String, macros: [String: String] = [:]) -> NSError? {
    let options = MTLCompileOptions()
    options.preprocessorMacros = macros.mapValues { NSString(string: $0) }
    do {
      _ = try rig.device.makeLibrary(source: source, options: options)
      return nil
    } catch { return error as NSError }
  }

  func testCompileErrorsNameTheLine() throws {
    let error = try XCTUnwrap(refusal("#define X 1\n\nkernel void k(device uint *a [[buffer(0)]]) {\n  a[0] = unknown;\n}\n"))
    XCTAssertEqual(error.domain, MTLLibraryErrorDomain)
    XCTAssertEqual(error.code, 3)
    XCTAssertTrue(error.localizedDescription.contains("program_source:4:"), error.localizedDescription)
    XCTAssertTrue(error.localizedDescription.contains("unknown"), error.localizedDescription)
  }

  func testWhatIsNotTheLanguageIsRefused() throws {
    let cases: [(String, String)] = [
      ("kernel void k(device double *a [[buffer(0)]]) {}", "double"),
      ("kernel void k(device uint *a [[buffer(0)]]) { auto f = new uint; }", "new"),
      ("kernel void k(device uint *a [[buffer(0)]], uint t [[thread_position_in_nowhere]]) {}", "thread_position_in_nowhere"),
      ("kernel void k(device uint *a) {}", "attribute"),
      ("kernel void k(device uint *a [[buffer(31)]]) {}", "buffer(31)"),
      ("kernel int k(device uint *a [[buffer(0)]]) { return 1; }", "void"),
      ("template <typename T> kernel void k(device T *a [[buffer(0)]]) {}", "before `kernel`"),
      ("kernel void k(device uint *a [[buffer(0)]]) { volatile threadgroup uint x[4]; }", "threadgroup"),
      ("#include <iostream>\nkernel void k(device uint *a [[buffer(0)]]) {}", "iostream"),
      ("struct S { uint v [[attribute(0)]]; };\nkernel void k(device S *a [[buffer(0)]]) {}", "attribute"),
      ("kernel void k(device uint a [[buffer(0)]]) {}", "error"),
      ("#if __METAL_VERSION__ < 9999\n#error old\n#endif", "old"),
    ]
    for (source, word) in cases {
      let error = refusal(source)
      XCTAssertNotNil(error, source)
      XCTAssertTrue(error?.localizedDescription.contains(word) ?? false, "\(source): \(error?.localizedDescription ?? "no error")")
    }
  }

  func testMacrosReachTheText() throws {
    XCTAssertNil(refusal("#if N != 5\n#error wrong\n#endif\nkernel void k(device uint *a [[buffer(0)]]) { a[0] = N; }", macros: ["N": "5"]))
    XCTAssertNotNil(refusal("#if N != 5\n#error wrong\n#endif\n", macros: ["N": "6"]))
  }

  func testTheCallerSeesFunctionsByName() throws {
    let library = try rig.device.makeLibrary(source: "kernel void a(device uint *p [[buffer(0)]]) {}\n[[kernel]] void b(device uint *p [[buffer(0)]]) {}", options: nil)
    XCTAssertEqual(library.functionNames, ["a", "b"])
    XCTAssertNil(library.makeFunction(name: "c"))
    XCTAssertEqual(library.makeFunction(name: "b")?.name, "b")
  }

  static let constants = """
    #include <metal_stdlib>
    using namespace metal;
    constant uint N [[function_constant(0)]];
    constant float F [[function_constant(3)]];
    constant bool B [[function_constant(4)]];
    constant uint M = is_function_constant_defined(N) ? N : 77;
    kernel void k(device float *a [[buffer(0)]]) { a[0] = float(M); }
    kernel void l(device float *a [[buffer(0)]]) { a[0] = B ? F : -F; }
    """

  func testFunctionConstants() throws {
    XCTAssertNil(refusal(Self.constants)?.localizedDescription)
    let library = try rig.device.makeLibrary(source: Self.constants, options: nil)
    func run(_ name: String, _ values: (MTLFunctionConstantValues) -> Void) throws -> Float {
      let constants = MTLFunctionConstantValues()
      values(constants)
      let function = try library.makeFunction(name: name, constantValues: constants)
      let pipeline = try rig.device.makeComputePipelineState(function: function)
      let buffer = rig.buffer(16) { _ in 0 }
      try rig.run(pipeline, groups: .threads(1), group: 1) { $0.setBuffer(buffer, offset: 0, index: 0) }
      return buffer.contents().load(as: Float.self)
    }
    var n: UInt32 = 123
    var f: Float = 0.1
    var b = false
    XCTAssertEqual(try run("k") { _ in }, 77)
    XCTAssertEqual(try run("k") { $0.setConstantValue(&n, type: .uint, index: 0) }, 123)
    XCTAssertEqual(
      try run("l") {
        $0.setConstantValue(&f, type: .float, withName: "F")
        $0.setConstantValue(&b, type: .bool, index: 4)
      }, -0.1)
    XCTAssertThrowsError(try run("l") { $0.setConstantValue(&f, type: .float, index: 3) }) { error in
      XCTAssertTrue((error as NSError).localizedDescription.contains("B"), "\(error)")
    }
    XCTAssertThrowsError(try run("k") { $0.setConstantValue(&f, type: .float, index: 0) })
    XCTAssertThrowsError(try run("nothing") { _ in }) { XCTAssertEqual(($0 as NSError).code, 5) }
  }

  func testArchivesKeepPipelines() throws {
    let url = URL(fileURLWithPath: NSTemporaryDirectory() + "/standin-archive-\(getpid())-\(UInt32.random(in: 0...UInt32.max))")
    defer { try? FileManager.default.removeItem(at: url) }
    let library = try rig.device.makeLibrary(source: Self.constants, options: nil)
    let descriptor = MTLComputePipelineDescriptor()
    descriptor.computeFunction = try library.makeFunction(name: "k", constantValues: MTLFunctionConstantValues())
    let archive = try rig.device.makeBinaryArchive(descriptor: MTLBinaryArchiveDescriptor())
    descriptor.binaryArchives = [archive]
    XCTAssertThrowsError(try rig.device.makeComputePipelineState(descriptor: descriptor, options: .failOnBinaryArchiveMiss, reflection: nil))
    try archive.addComputePipelineFunctions(descriptor: descriptor)
    try archive.serialize(to: url)
    let place = MTLBinaryArchiveDescriptor()
    place.url = url
    descriptor.binaryArchives = [try rig.device.makeBinaryArchive(descriptor: place)]
    let pipeline = try rig.device.makeComputePipelineState(descriptor: descriptor, options: .failOnBinaryArchiveMiss, reflection: nil)
    let buffer = rig.buffer(16) { _ in 0 }
    try rig.run(pipeline, groups: .threads(1), group: 1) { $0.setBuffer(buffer, offset: 0, index: 0) }
    XCTAssertEqual(buffer.contents().load(as: Float.self), 77)

    var bytes = try Data(contentsOf: url)
    bytes[bytes.count / 2] ^= 1
    try bytes.write(to: url)
    XCTAssertThrowsError(try rig.device.makeBinaryArchive(descriptor: place)) { XCTAssertEqual(($0 as NSError).code, 1) }
    try Data().write(to: url)
    XCTAssertThrowsError(try rig.device.makeBinaryArchive(descriptor: place)) { XCTAssertEqual(($0 as NSError).code, 1) }
  }
}
