// What all parts of the mock share: its configuration, the tables behind the handles, injected faults, and the guard
// that every exported function passes first.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "driver.h"

namespace mock {

struct Context;
struct Stream;
struct Event;
struct Module;
struct Function;
struct Program;
struct FileHandle;
struct Graph;
struct GraphExec;
struct BlasHandle;

struct Config {
  int devices = 2;
  uint64_t total_bytes = uint64_t(1) << 30;  // of each device
  int driver_version = 13000;
  int nvrtc_major = 13, nvrtc_minor = 0;
  int cublas_major = 13;
  uint64_t seed = 0;
  uint32_t max_delay_us = 0;       // before operations of streams, drawn from the seed; 0: none
  uint64_t piece_bytes = 1 << 20;  // copies move so much at a time
  bool context_after_loss = false; // whether cuCtxCreate works after a context was lost
  bool free_waits = false;         // cuMemFree waits for the device, as the driver does though nothing says that it must
  bool idle = false;               // kernels and products do nothing, for measurements of those who call
  bool gds = true;
  bool nvidia_fs = true;           // without: cuFile reads into host memory and copies
  std::map<int, int> attributes;   // those of an H100, unless configured
};

// Objects by handles that are never used twice, so that a stale one is always noticed. Kinds differ in their base, and
// none is an address of anything.
template <typename T> class Table {
 public:
  explicit Table(uintptr_t kind) : next_((uintptr_t(0x5c) << 40) + (kind << 32)) {}

  void *add(std::shared_ptr<T> object) {
    std::lock_guard<std::mutex> hold(lock_);
    void *handle = reinterpret_cast<void *>(next_ += 64);
    objects_[handle] = std::move(object);
    return handle;
  }
  std::shared_ptr<T> find(void *handle) const {
    std::lock_guard<std::mutex> hold(lock_);
    auto found = objects_.find(handle);
    return found == objects_.end() ? nullptr : found->second;
  }
  std::shared_ptr<T> remove(void *handle) {
    std::lock_guard<std::mutex> hold(lock_);
    auto found = objects_.find(handle);
    if (found == objects_.end()) return nullptr;
    std::shared_ptr<T> object = std::move(found->second);
    objects_.erase(found);
    return object;
  }
  // Takes out all that `which` says, and gives them.
  template <typename Which> std::vector<std::shared_ptr<T>> remove_if(Which which) {
    std::lock_guard<std::mutex> hold(lock_);
    std::vector<std::shared_ptr<T>> removed;
    for (auto at = objects_.begin(); at != objects_.end();) {
      if (which(*at->second)) {
        removed.push_back(std::move(at->second));
        at = objects_.erase(at);
      } else {
        ++at;
      }
    }
    return removed;
  }
  std::vector<std::shared_ptr<T>> all() const {
    std::lock_guard<std::mutex> hold(lock_);
    std::vector<std::shared_ptr<T>> list;
    for (const auto &entry : objects_) list.push_back(entry.second);
    return list;
  }
  size_t size() const {
    std::lock_guard<std::mutex> hold(lock_);
    return objects_.size();
  }

 private:
  mutable std::mutex lock_;
  std::map<void *, std::shared_ptr<T>> objects_;
  uintptr_t next_;
};

// The nth call of a function, and `times - 1` after it, fail with `code`; `later` ones return success, and what they
// put into a stream fails when it runs, which loses the context.
struct Fault {
  Fn function;
  uint64_t nth = 1, times = 1;
  CUresult code = 0;
  bool later = false;
  uint32_t delay_us = 0;
  std::atomic<uint64_t> met{0};
};

struct State {
  std::mutex lock;  // of config, faults and reports
  Config config;
  std::vector<std::shared_ptr<Fault>> faults;
  std::vector<std::string> reports;
  std::array<std::atomic<uint64_t>, Fn_count> calls{};
  std::atomic<bool> initialised{false};
  std::atomic<CUresult> lost{0};            // the first context's that was
  std::atomic<uint64_t> abandoned{0};       // objects that a context's end had to clear away
  std::atomic<uint64_t> cufile_opens{0};
  Table<Context> contexts{1};
  Table<Stream> streams{2};
  Table<Event> events{3};
  Table<Module> modules{4};
  Table<Function> functions{5};
  Table<Program> programs{6};
  Table<FileHandle> files{7};
  Table<Graph> graphs{8};
  Table<GraphExec> graph_execs{9};
  Table<BlasHandle> blas_handles{10};
};

// Never destroyed: threads of streams may outlive static objects at the process's end.
State &state();
Config config();
// Remembers why something went wrong, in words, for whoever debugs a test.
void report(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *function_name(Fn function);
// -1 where there is none of that name.
int function_number(const std::string &name);

enum class Needs { Nothing, Initialised, Context };

// Counts a call and says whether it may go on.
class Scope {
 public:
  Scope(Fn function, Needs needs);
  bool fails() const { return code != 0; }

  CUresult code = 0;   // to return at once
  CUresult later = 0;  // what the call puts into a stream fails with this
  std::shared_ptr<mock::Context> context;  // where one is needed
};

}  // namespace mock
