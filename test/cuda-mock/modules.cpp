#include "modules.h"

#include <dlfcn.h>
#include <link.h>

#include <cstring>

#include "crew.h"
#include "device.h"
#include "graphs.h"
#include "nvrtc.h"
#include "random.h"

namespace mock {

Library::~Library() {
  if (handle != nullptr) dlclose(handle);
}

static int find_range(dl_phdr_info *info, size_t, void *passed) {
  auto *library = static_cast<Library *>(passed);
  uintptr_t from = UINTPTR_MAX, to = 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const auto &part = info->dlpi_phdr[i];
    if (part.p_type != PT_LOAD) continue;
    from = std::min(from, uintptr_t(info->dlpi_addr + part.p_vaddr));
    to = std::max(to, uintptr_t(info->dlpi_addr + part.p_vaddr + part.p_memsz));
  }
  auto entry = reinterpret_cast<uintptr_t>(library->entry);
  if (entry < from || entry >= to) return 0;
  library->from = from;
  library->to = to;
  return 1;
}

std::shared_ptr<Library> open_library(const std::string &path, std::string *reason) {
  static std::mutex &lock = *new std::mutex;
  static auto &open = *new std::map<std::string, std::weak_ptr<Library>>;
  std::lock_guard<std::mutex> hold(lock);
  if (auto known = open[path].lock()) return known;
  auto library = std::make_shared<Library>();
  library->handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  void *entry = library->handle == nullptr ? nullptr : dlsym(library->handle, "mock_module");
  if (entry == nullptr) {
    const char *error = dlerror();
    *reason = error == nullptr ? "no mock_module in it" : error;
    return nullptr;
  }
  library->entry = static_cast<const ModuleEntry *>(entry);
  dl_iterate_phdr(find_range, library.get());
  open[path] = library;
  return library;
}

// Of arguments: 16 bytes' alignment suits every one. No number, as a copy of one may leave out what is no part of its value.
struct alignas(16) Sixteen {
  unsigned char bytes[16];
};

static const KernelEntry *find_kernel(const ModuleEntry &entry, const char *name) {
  for (uint32_t i = 0; i < entry.kernel_count; i++)
    if (strcmp(entry.kernels[i].name, name) == 0) return &entry.kernels[i];
  return nullptr;
}

// Shared memory of all kernels of the text, which lies in one piece.
static int shared_bytes(const Function &function) {
  const ModuleEntry &entry = *function.module->library->entry;
  return int(entry.shared_end - entry.shared);
}

static bool within(const unsigned value[3], const unsigned (&limits)[3]) {
  for (int axis = 0; axis < 3; axis++)
    if (value[axis] == 0 || value[axis] > limits[axis]) return false;
  return true;
}

// Why a launch is refused; null where it is not.
static const char *refusal(const Function &function, const unsigned blocks[3], const unsigned threads[3],
                           unsigned dynamic) {
  constexpr unsigned GRID[3] = {2147483647, 65535, 65535}, BLOCK[3] = {1024, 1024, 64};
  int device = function.context->device;
  if (!within(blocks, GRID)) return "the grid is empty or too large";
  if (!within(threads, BLOCK)) return "the block is empty or too large";
  uint64_t all = uint64_t(threads[0]) * threads[1] * threads[2];
  if (all > unsigned(attribute(device, ATTRIBUTE_MAX_THREADS_PER_BLOCK))) return "the block has too many threads";
  if (function.kernel->max_threads > 0 && all > function.kernel->max_threads)
    return "the block has more threads than the kernel's launch bounds";
  int limit = std::max(attribute(device, ATTRIBUTE_MAX_SHARED_PER_BLOCK) - shared_bytes(function),
                       function.dynamic_limit.load());
  if (int64_t(dynamic) > limit) return "it asks for more dynamic shared memory than the kernel may have";
  return nullptr;
}

}  // namespace mock

using namespace mock;

MOCK_EXPORT CUresult cuModuleLoadData(CUmodule *made, const void *image) {
  Scope scope(Fn_cuModuleLoadData, Needs::Context);
  if (scope.fails()) return scope.code;
  if (made == nullptr || image == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Ptx ptx;
  if (!read_ptx(static_cast<const char *>(image), &ptx)) {
    report("cuModuleLoadData: the image is no text that this mock's NVRTC made");
    return CUDA_ERROR_INVALID_PTX;
  }
  int device = scope.context->device;
  int capability = attribute(device, ATTRIBUTE_CAPABILITY_MAJOR) * 10 + attribute(device, ATTRIBUTE_CAPABILITY_MINOR);
  // PTX is for its target and all later ones; machine code for those of the same major version.
  bool fits = ptx.target <= capability && (ptx.cuda > 0 || ptx.target / 10 == capability / 10);
  if (!fits) {
    report("cuModuleLoadData: the image is for sm_%d, and device %d is sm_%d", ptx.target, device, capability);
    return CUDA_ERROR_NO_BINARY_FOR_GPU;
  }
  if (ptx.cuda > config().driver_version) {
    report("cuModuleLoadData: PTX of CUDA %d, and the driver is of %d", ptx.cuda, config().driver_version);
    return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
  }
  std::string reason;
  auto module = std::make_shared<Module>();
  module->context = scope.context;
  module->library = open_library(ptx.object, &reason);
  if (module->library == nullptr) {
    report("cuModuleLoadData: %s", reason.c_str());
    return CUDA_ERROR_INVALID_PTX;
  }
  *made = state().modules.add(module);
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuModuleUnload(CUmodule handle) {
  Scope scope(Fn_cuModuleUnload, Needs::Context);
  if (scope.fails()) return scope.code;
  auto module = state().modules.remove(handle);
  if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  module->unloaded = true;
  state().functions.remove_if([&](const Function &one) { return one.module == module; });
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuModuleGetFunction(CUfunction *made, CUmodule handle, const char *name) {
  Scope scope(Fn_cuModuleGetFunction, Needs::Context);
  if (scope.fails()) return scope.code;
  if (made == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  auto module = state().modules.find(handle);
  if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const KernelEntry *kernel = find_kernel(*module->library->entry, name);
  if (kernel == nullptr) return CUDA_ERROR_NOT_FOUND;
  auto function = std::make_shared<Function>();
  function->context = module->context;
  function->module = module;
  function->kernel = kernel;
  *made = state().functions.add(function);
  return CUDA_SUCCESS;
}

enum { MAX_THREADS = 0, SHARED = 1, CONSTANT = 2, LOCAL = 3, REGISTERS = 4, PTX_VERSION = 5, BINARY_VERSION = 6,
       CACHE_MODE = 7, MAX_DYNAMIC = 8, CARVEOUT = 9 };

MOCK_EXPORT CUresult cuFuncGetAttribute(int *value, int number, CUfunction handle) {
  Scope scope(Fn_cuFuncGetAttribute, Needs::Context);
  if (scope.fails()) return scope.code;
  auto function = state().functions.find(handle);
  if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (value == nullptr || number < MAX_THREADS || number > CARVEOUT) return CUDA_ERROR_INVALID_VALUE;
  int bound = int(function->kernel->max_threads), device = function->context->device;
  int left = attribute(device, ATTRIBUTE_MAX_SHARED_PER_BLOCK) - shared_bytes(*function);
  const int values[] = {bound > 0 ? bound : 1024, shared_bytes(*function), 0, 0, 32, 90, 90, 0,
                        std::max(left, function->dynamic_limit.load()), -1};
  *value = values[number];
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuFuncSetAttribute(CUfunction handle, int number, int value) {
  Scope scope(Fn_cuFuncSetAttribute, Needs::Context);
  if (scope.fails()) return scope.code;
  auto function = state().functions.find(handle);
  if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (number == CARVEOUT) return value >= -1 && value <= 100 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  int most = attribute(function->context->device, ATTRIBUTE_MAX_SHARED_OPTIN) - shared_bytes(*function);
  if (number != MAX_DYNAMIC || value < 0 || value > most) return CUDA_ERROR_INVALID_VALUE;
  function->dynamic_limit = value;
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuLaunchKernel(CUfunction handle, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                    unsigned block_x, unsigned block_y, unsigned block_z, unsigned dynamic,
                                    CUstream in, void **parameters, void **extra) {
  Scope scope(Fn_cuLaunchKernel, Needs::Context);
  if (scope.fails()) return scope.code;
  auto function = state().functions.find(handle);
  auto stream = find_stream(scope.context, in);
  if (function == nullptr || stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (function->context != scope.context || stream->context != scope.context) return CUDA_ERROR_INVALID_HANDLE;
  const KernelEntry &kernel = *function->kernel;
  if (extra != nullptr || (parameters == nullptr && kernel.arguments > 0)) return CUDA_ERROR_INVALID_VALUE;
  unsigned blocks[3] = {grid_x, grid_y, grid_z}, threads[3] = {block_x, block_y, block_z};
  if (const char *why = refusal(*function, blocks, threads, dynamic)) {
    report("cuLaunchKernel of %s: %s", kernel.name, why);
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (CUresult code = refused_by_capture(Fn_cuLaunchKernel, stream, true)) return code;
  // Arguments are taken now.
  std::vector<std::vector<Sixteen>> values;
  for (uint32_t i = 0; i < kernel.arguments; i++) {
    if (parameters[i] == nullptr) return CUDA_ERROR_INVALID_VALUE;
    values.emplace_back((kernel.sizes[i] + sizeof(Sixteen) - 1) / sizeof(Sixteen));
    memcpy(values.back().data(), parameters[i], kernel.sizes[i]);
  }
  Grid grid{{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, 0};
  CUresult later = scope.later;
  Operation operation;
  operation.run = [=, values = std::move(values)]() mutable -> CUresult {
    static std::atomic<uint64_t> launches{0};
    if (later != 0 || config().idle) return later;
    if (function->module->unloaded) {
      report("kernel %s ran when its module was unloaded", function->kernel->name);
      return CUDA_ERROR_ILLEGAL_ADDRESS;
    }
    Grid now = grid;
    now.order = mix(config().seed ^ ++launches) >> 32;
    std::vector<void *> arguments;
    for (auto &value : values) arguments.push_back(value.data());
    return run_grid(*function->module->library, *function->kernel, now, arguments.data(), function->context->handle);
  };
  submit(stream, std::move(operation));
  return CUDA_SUCCESS;
}
