// swift-tools-version:6.0
import PackageDescription

// On Linux a module named Metal stands in for Apple's framework, so that the same sources build and can be tested.
#if os(Linux)
let standInTargets: [Target] = [
  .target(
    name: "CStandIn", path: "StandIn/CStandIn",
    linkerSettings: [
      .linkedLibrary("z"), .linkedLibrary("lz4"), .linkedLibrary("lzma"), .linkedLibrary("lzfse"), .linkedLibrary("dl"),
    ]),
  .target(name: "Metal", dependencies: ["CStandIn"], path: "StandIn/Metal"),
  .target(name: "MetalPerformanceShaders", dependencies: ["Metal"], path: "StandIn/MetalPerformanceShaders"),
  .testTarget(name: "StandInTests", dependencies: ["Metal", "MetalPerformanceShaders", "CStandIn"], path: "Tests/StandInTests"),
]
let standInC: [Target.Dependency] = ["CStandIn"]
let standInMetal: [Target.Dependency] = ["Metal", "MetalPerformanceShaders"]
let standInSettings: [CSetting] = [.define("HR_STAND_IN"), .define("_GNU_SOURCE")]
#else
let standInTargets: [Target] = []
let standInC: [Target.Dependency] = []
let standInMetal: [Target.Dependency] = []
let standInSettings: [CSetting] = []
#endif

let package = Package(
  name: "HeadraceMetal",
  platforms: [.macOS(.v14)],
  products: [.library(name: "HeadraceMetal", type: .dynamic, targets: ["HeadraceMetal"])],
  targets: [
    .target(name: "CHeadrace", dependencies: standInC, cSettings: standInSettings),
    .target(
      name: "HeadraceMetal",
      dependencies: ["CHeadrace"] + standInMetal,
      // What macOS 15 brought is declared: Swift 6 comes with an SDK that has it. Sources compile without it, too.
      swiftSettings: [.define("HEADRACE_SDK_15")],
      linkerSettings: [
        // Without CoreGraphics a command-line process gets no default device.
        .linkedFramework("Metal", .when(platforms: [.macOS])),
        .linkedFramework("MetalPerformanceShaders", .when(platforms: [.macOS])),
        .linkedFramework("CoreGraphics", .when(platforms: [.macOS])),
      ]),
    .testTarget(name: "HeadraceMetalTests", dependencies: ["HeadraceMetal", "CHeadrace"] + standInC + standInMetal,
      swiftSettings: [.define("HEADRACE_SDK_15")]),
  ] + standInTargets,
  swiftLanguageModes: [.v6]
)
