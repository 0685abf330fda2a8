// The exported functions of cuFile: file and device memory directly, by way of pread and pwrite.
#include "cufile.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "context.h"
#include "memory.h"

namespace mock {

struct FileHandle {
  int fd;
};

struct Buffers {
  std::mutex lock;
  std::map<uintptr_t, uint64_t> lengths;
};

static Buffers &buffers() {
  static Buffers &all = *new Buffers;
  return all;
}

uint64_t file_buffers() {
  std::lock_guard<std::mutex> hold(buffers().lock);
  return buffers().lengths.size();
}

void reset_files() {
  state().files.remove_if([](const FileHandle &) { return true; });
  state().cufile_opens = 0;
  std::lock_guard<std::mutex> hold(buffers().lock);
  buffers().lengths.clear();
}

enum : int {
  FILE_SUCCESS = 0,
  FILE_DRIVER_NOT_INITIALIZED = 5001,
  FILE_PLATFORM_NOT_SUPPORTED = 5007,
  FILE_CUDA_DRIVER_ERROR = 5011,
  FILE_CUDA_MEMORY_TYPE_INVALID = 5013,
  FILE_CUDA_POINTER_RANGE_ERROR = 5014,
  FILE_INVALID_FILE_TYPE = 5018,
  FILE_INVALID_VALUE = 5022,
  FILE_MEMORY_ALREADY_REGISTERED = 5023,
  FILE_MEMORY_NOT_REGISTERED = 5024,
  FILE_HANDLE_NOT_REGISTERED = 5027,
  FILE_HANDLE_ALREADY_REGISTERED = 5028,
};

// CUfileError_t, in one register.
struct FileError {
  int code, cuda;
};

// CUfileDescr_t
struct FileDescription {
  int type;
  union {
    int fd;
    void *handle;
  };
  const void *functions;
};

constexpr int OPAQUE_FD = 1;

static FileError failed(CUresult cuda) { return {FILE_CUDA_DRIVER_ERROR, cuda}; }

// Faults give cuFile's own numbers.
static FileError opened(const Scope &scope) {
  if (scope.fails()) return {scope.code, 0};
  return {state().cufile_opens > 0 ? FILE_SUCCESS : FILE_DRIVER_NOT_INITIALIZED, 0};
}

}  // namespace mock

using namespace mock;

MOCK_EXPORT FileError cuFileDriverOpen() {
  Scope scope(Fn_cuFileDriverOpen, Needs::Nothing);
  if (scope.fails()) return {scope.code, 0};
  if (!config().gds) return {FILE_PLATFORM_NOT_SUPPORTED, 0};
  if (!state().initialised) return failed(CUDA_ERROR_NOT_INITIALIZED);
  ++state().cufile_opens;
  return {FILE_SUCCESS, 0};
}

MOCK_EXPORT FileError cuFileDriverClose_v2() {
  Scope scope(Fn_cuFileDriverClose_v2, Needs::Nothing);
  FileError state_now = opened(scope);
  if (state_now.code != 0) return state_now;
  --state().cufile_opens;
  return {FILE_SUCCESS, 0};
}

// CUfileDrvProps_t, as far as it tells of the kernel module.
MOCK_EXPORT FileError cuFileDriverGetProperties(void *properties) {
  Scope scope(Fn_cuFileDriverGetProperties, Needs::Nothing);
  FileError error = opened(scope);
  if (error.code != 0) return error;
  if (properties == nullptr) return {FILE_INVALID_VALUE, 0};
  memset(properties, 0, 56);
  const uint32_t major = config().nvidia_fs ? 2 : 0;
  memcpy(properties, &major, sizeof major);
  return {FILE_SUCCESS, 0};
}

MOCK_EXPORT FileError cuFileHandleRegister(void **made, const FileDescription *description) {
  Scope scope(Fn_cuFileHandleRegister, Needs::Nothing);
  FileError error = opened(scope);
  if (error.code != 0) return error;
  if (made == nullptr || description == nullptr || description->type != OPAQUE_FD) return {FILE_INVALID_VALUE, 0};
  struct stat facts;
  if (fstat(description->fd, &facts) != 0 || !S_ISREG(facts.st_mode)) return {FILE_INVALID_FILE_TYPE, 0};
  for (const auto &file : state().files.all())
    if (file->fd == description->fd) return {FILE_HANDLE_ALREADY_REGISTERED, 0};
  *made = state().files.add(std::make_shared<FileHandle>(FileHandle{description->fd}));
  return {FILE_SUCCESS, 0};
}

MOCK_EXPORT void cuFileHandleDeregister(void *handle) {
  Scope scope(Fn_cuFileHandleDeregister, Needs::Nothing);
  if (state().files.remove(handle) == nullptr) report("cuFileHandleDeregister of a handle that is not registered");
}

// Whether a range is memory of a device that is allocated now; leaves the place.
static int device_range(uintptr_t address, uint64_t bytes, Place *place) {
  if (memory().find(address, bytes, nullptr, place) != 0) return FILE_CUDA_POINTER_RANGE_ERROR;
  return place->kind == Place::Device ? FILE_SUCCESS : FILE_CUDA_MEMORY_TYPE_INVALID;
}

MOCK_EXPORT FileError cuFileBufRegister(const void *base, size_t bytes, int) {
  Scope scope(Fn_cuFileBufRegister, Needs::Context);
  FileError error = opened(scope);
  if (error.code != 0) return error.code == CUDA_ERROR_INVALID_CONTEXT ? failed(error.code) : error;
  auto address = reinterpret_cast<uintptr_t>(base);
  Place place;
  {
    std::shared_lock<std::shared_mutex> hold(memory().lock);
    if (int code = device_range(address, bytes, &place)) return {code, 0};
  }
  std::lock_guard<std::mutex> hold(buffers().lock);
  if (!buffers().lengths.emplace(address, bytes).second) return {FILE_MEMORY_ALREADY_REGISTERED, 0};
  return {FILE_SUCCESS, 0};
}

MOCK_EXPORT FileError cuFileBufDeregister(const void *base) {
  Scope scope(Fn_cuFileBufDeregister, Needs::Nothing);
  FileError error = opened(scope);
  if (error.code != 0) return error;
  std::lock_guard<std::mutex> hold(buffers().lock);
  size_t gone = buffers().lengths.erase(reinterpret_cast<uintptr_t>(base));
  return {gone == 0 ? FILE_MEMORY_NOT_REGISTERED : FILE_SUCCESS, 0};
}

// Bytes moved, which may be fewer than asked for at a file's end; -1 with errno; the negative of cuFile's number.
static ssize_t move(Fn function, void *handle, void *base, size_t bytes, off_t in_file, off_t in_buffer, bool writes) {
  Scope scope(function, Needs::Context);
  FileError error = opened(scope);
  if (error.code > 0 && error.code < 200) {
    errno = error.code;
    return -1;
  }
  if (error.code != 0) return -(error.code < 5000 ? int(FILE_CUDA_DRIVER_ERROR) : error.code);
  auto file = state().files.find(handle);
  if (file == nullptr) return -FILE_HANDLE_NOT_REGISTERED;
  if (in_file < 0 || in_buffer < 0) return -FILE_INVALID_VALUE;
  size_t moved = 0;
  while (moved < bytes) {
    std::shared_lock<std::shared_mutex> hold(memory().lock);
    Place place;
    uintptr_t from = reinterpret_cast<uintptr_t>(base) + uintptr_t(in_buffer) + moved;
    if (int code = device_range(from, bytes - moved, &place)) return -code;
    off_t at = in_file + off_t(moved);
    ssize_t part = writes ? pwrite(file->fd, place.bytes, bytes - moved, at)
                          : pread(file->fd, place.bytes, bytes - moved, at);
    if (part < 0 && errno == EINTR) continue;
    if (part < 0) return -1;
    if (part == 0) break;
    moved += size_t(part);
  }
  return ssize_t(moved);
}

MOCK_EXPORT ssize_t cuFileRead(void *handle, void *base, size_t bytes, off_t in_file, off_t in_buffer) {
  return move(Fn_cuFileRead, handle, base, bytes, in_file, in_buffer, false);
}

MOCK_EXPORT ssize_t cuFileWrite(void *handle, const void *base, size_t bytes, off_t in_file, off_t in_buffer) {
  return move(Fn_cuFileWrite, handle, const_cast<void *>(base), bytes, in_file, in_buffer, true);
}
