// Modules: compiled kernel texts, and what runs their blocks.
#pragma once

#include "context.h"
#include "launch.h"
#include "memory.h"

namespace mock {

class Crew;

// A compiled text as the system's loader has it: once in a process, however many modules are made of it.
struct Library {
  ~Library();

  void *handle = nullptr;  // dlopen's
  const ModuleEntry *entry = nullptr;
  uintptr_t from = 0, to = 0;  // where it lies in memory
  std::mutex running;          // one kernel of it at a time: its shared memory is one array
  std::unique_ptr<Crew> crew;
};

struct Module {
  std::shared_ptr<Context> context;
  std::shared_ptr<Library> library;
  std::atomic<bool> unloaded{false};
};

struct Function {
  std::shared_ptr<Context> context;
  std::shared_ptr<Module> module;
  const KernelEntry *kernel = nullptr;
  std::atomic<int> dynamic_limit{0};
};

// Null, and a reason, where the file is no compiled text.
std::shared_ptr<Library> open_library(const std::string &path, std::string *reason);

struct Grid {
  uint32_t blocks[3], threads[3];
  uint64_t order;  // decides in which order blocks run
};

// Runs a grid; gives the error that its context is lost by, or 0.
CUresult run_grid(Library &library, const KernelEntry &kernel, const Grid &grid, void **arguments, void *context);

}  // namespace mock
