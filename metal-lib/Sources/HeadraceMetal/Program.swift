import CHeadrace

/// Requests between two ordering ones, or an ordering one. Each step of a submission waits for the one before it.
enum Step: Sendable {
  case moves(MoveStep)
  /// Streamed reads alone, and GPU work behind them.
  case loads(LoadStep)
  /// Run by the queue's GPU queue.
  case gpu([GPUOperation])
  case signal(Event, UInt64)
  case wait(Event, UInt64)
  /// Until private memory is zeroed.
  case latch(Latch)
  /// Work of its own kind, that fills a ticket.
  case work(@Sendable (@escaping Ended) -> any RunningWork)
}

/// Requests that run side by side.
struct MoveStep: Sendable {
  /// Reads and copies between memory that the host sees.
  var reads: [Move] = []
  /// Writes and syncs.
  var writes: [Move] = []
  /// Reads of streamed files.
  var loads: [StreamLoad] = []
  /// Copies with a private side.
  var copies: [GPUOperation] = []
  /// Reads into private memory and writes from it.
  var stagedReads: [StagedMove] = []
  var stagedWrites: [StagedMove] = []
  var copyBytes = 0
  /// Whether `reads` are copies alone, and there is nothing else.
  var isCopiesOnly = true

  var isEmpty: Bool { reads.isEmpty && writes.isEmpty && loads.isEmpty && copies.isEmpty && isStagedEmpty }
  var isGPUOnly: Bool { reads.isEmpty && writes.isEmpty && loads.isEmpty && isStagedEmpty && !copies.isEmpty }
  var isLoadsOnly: Bool { reads.isEmpty && writes.isEmpty && copies.isEmpty && isStagedEmpty && !loads.isEmpty }
  private var isStagedEmpty: Bool { stagedReads.isEmpty && stagedWrites.isEmpty }
}

/// Streamed reads with barriers between them, and what the GPU then does.
struct LoadStep: Sendable {
  /// The reads of a phase run side by side; each phase comes after the one before it.
  var phases: [[StreamLoad]]
  var operations: [GPUOperation] = []
}

/// A request of a private buffer and a file: through memory that both the host and the GPU see.
struct StagedMove: Sendable {
  let request: Int
  let descriptor: Descriptor
  let fileOffset: Int
  let buffer: Buffer
  let bufferOffset: Int
  let byteLength: Int
}

/// A checked submission: requests resolved to addresses and descriptors, cut at those that order others.
struct Program: Sendable {
  var steps: [Step] = []
  /// What the steps use, kept until the ticket is quiet.
  var keep: [Resource] = []
  /// Files behind mappings that the steps touch.
  var mappings: [Mapping] = []
  var needsGPU = false

  /// Puts streamed reads behind all else: one step with those right before them.
  mutating func add(_ loads: [StreamLoad]) {
    if case .loads(var step) = steps.last, step.operations.isEmpty {
      step.phases.append(loads)
      steps[steps.count - 1] = .loads(step)
    } else {
      steps.append(.loads(LoadStep(phases: [loads])))
    }
  }

  /// Puts GPU work behind all else: one step with streamed reads right before it.
  mutating func add(_ operations: [GPUOperation]) {
    if case .loads(var step) = steps.last, step.operations.isEmpty {
      step.operations = operations
      steps[steps.count - 1] = .loads(step)
    } else {
      steps.append(.gpu(operations))
    }
  }

  /// HR_FILE_CHANGED, HR_IO.
  func checkFiles() throws(Failure) {
    for mapping in mappings { try mapping.checkFile() }
  }
}
