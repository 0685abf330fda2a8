// What tests say to the mock and ask of it. Texts hold one thing a line: `name value`, and for faults
// `function nth times code later delayMicroseconds`.
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "blas.h"
#include "context.h"
#include "cufile.h"
#include "graphs.h"
#include "memory.h"
#include "modules.h"
#include "nvrtc.h"

using namespace mock;

static bool set(Config &config, const std::string &name, uint64_t value) {
  if (name.rfind("attribute.", 0) == 0) config.attributes[atoi(name.c_str() + 10)] = int(value);
  else if (name == "devices") config.devices = int(value);
  else if (name == "totalBytes") config.total_bytes = value;
  else if (name == "driverVersion") config.driver_version = int(value);
  else if (name == "nvrtcMajor") config.nvrtc_major = int(value);
  else if (name == "nvrtcMinor") config.nvrtc_minor = int(value);
  else if (name == "cublasMajor") config.cublas_major = int(value);
  else if (name == "seed") config.seed = value;
  else if (name == "maxDelayUs") config.max_delay_us = uint32_t(value);
  else if (name == "pieceBytes" && value > 0) config.piece_bytes = value;
  else if (name == "contextAfterLoss") config.context_after_loss = value != 0;
  else if (name == "freeWaits") config.free_waits = value != 0;
  else if (name == "idle") config.idle = value != 0;
  else if (name == "gds") config.gds = value != 0;
  else if (name == "nvidiaFs") config.nvidia_fs = value != 0;
  else return false;
  return true;
}

// Changes what is named. -1 where a name or value is not known, and -2 where memory is live and its size would change.
MOCK_EXPORT int mock_configure(const char *text) {
  Config made = config();
  uint64_t total = made.total_bytes;
  std::istringstream lines(text);
  std::string name;
  uint64_t value;
  while (lines >> name)
    if (!(lines >> value) || !set(made, name, value)) return -1;
  if (made.total_bytes != total && !memory().forget_arenas()) return -2;
  std::lock_guard<std::mutex> hold(state().lock);
  state().config = made;
  return 0;
}

// Replaces all faults, and counts anew. -1 where a line cannot be understood.
MOCK_EXPORT int mock_set_faults(const char *text) {
  std::vector<std::shared_ptr<Fault>> faults;
  std::istringstream lines(text);
  std::string name;
  while (lines >> name) {
    auto fault = std::make_shared<Fault>();
    int function = function_number(name), later;
    if (function < 0 || !(lines >> fault->nth >> fault->times >> fault->code >> later >> fault->delay_us)) return -1;
    fault->function = Fn(function);
    fault->later = later != 0;
    faults.push_back(fault);
  }
  std::lock_guard<std::mutex> hold(state().lock);
  state().faults = std::move(faults);
  return 0;
}

// Calls of a function since the last reset; -1 where there is none of that name.
MOCK_EXPORT int64_t mock_calls(const char *name) {
  int function = function_number(name);
  return function < 0 ? -1 : int64_t(state().calls[size_t(function)].load());
}

enum Live { Contexts, Streams, Events, Modules, Allocations, DeviceBytes, Registrations, RegisteredBytes, Programs,
            FileHandles, FileBuffers, FileDriver, Graphs, GraphExecs, BlasHandles, Abandoned, Live_count };

MOCK_EXPORT void mock_live(uint64_t counts[Live_count]) {
  State &all = state();
  counts[Contexts] = all.contexts.size();
  counts[Streams] = all.streams.size();
  counts[Events] = all.events.size();
  counts[Modules] = all.modules.size();
  memory().live(&counts[Allocations], &counts[DeviceBytes], &counts[Registrations], &counts[RegisteredBytes]);
  counts[Programs] = all.programs.size();
  counts[FileHandles] = all.files.size();
  counts[FileBuffers] = file_buffers();
  counts[FileDriver] = all.cufile_opens;
  counts[Graphs] = all.graphs.size();
  counts[GraphExecs] = all.graph_execs.size();
  counts[BlasHandles] = all.blas_handles.size();
  counts[Abandoned] = all.abandoned;
}

// All reports since the last reset, a line each. Gives their length in bytes, and as much of them as fits.
MOCK_EXPORT uint64_t mock_reports(char *text, uint64_t capacity) {
  std::string joined;
  {
    std::lock_guard<std::mutex> hold(state().lock);
    for (const auto &one : state().reports) joined += one + "\n";
  }
  if (capacity > 0) memcpy(text, joined.data(), std::min(size_t(capacity), joined.size()));
  return joined.size();
}

// As after the library was loaded. Whoever calls sees to it that no other thread uses the mock meanwhile.
MOCK_EXPORT void mock_reset() {
  State &all = state();
  for (const auto &context : all.contexts.remove_if([](const Context &) { return true; })) clear_context(context);
  all.programs.remove_if([](const Program &) { return true; });
  reset_files();
  memory().forget_arenas();
  for (auto &count : all.calls) count = 0;
  all.initialised = false;
  all.lost = 0;
  all.abandoned = 0;
  std::lock_guard<std::mutex> hold(all.lock);
  all.config = Config();
  all.faults.clear();
  all.reports.clear();
}
