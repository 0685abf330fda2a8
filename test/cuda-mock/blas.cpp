// cuBLAS: handles and one matrix product, as far as the device calls it. It sums in an order that depends on the sizes,
// as the library does, so that nobody may count on the last bits.
#include "blas.h"

#include <cstring>
#include <mutex>
#include <set>

#include "context.h"
#include "graphs.h"
#include "memory.h"

namespace mock {

enum { BLAS_SUCCESS = 0, BLAS_NOT_INITIALIZED = 1, BLAS_INVALID_VALUE = 7, BLAS_EXECUTION_FAILED = 13,
       BLAS_NOT_SUPPORTED = 15 };
// cublasOperation_t, cudaDataType_t, cublasComputeType_t
enum { OP_N = 0, OP_T = 1, R_32F = 0, R_16F = 2, R_16BF = 14, COMPUTE_32F = 68 };

struct Matrix {
  uintptr_t address;
  int type, stride;       // elements from one column to the next
  uint64_t rows, columns;

  uint64_t size() const { return type == R_32F ? 4 : 2; }
  uint64_t bytes() const {
    return rows == 0 || columns == 0 ? 0 : ((columns - 1) * uint64_t(stride) + rows) * size();
  }
};

struct Product {
  Matrix a, b, c;
  float alpha, beta;
  uintptr_t workspace;
  uint64_t workspace_bytes;
  void *context;
};

static uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

static float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static float load(const char *at, int type) {
  if (type == R_32F) {
    float value;
    memcpy(&value, at, 4);
    return value;
  }
  uint16_t bits;
  memcpy(&bits, at, 2);
  if (type == R_16BF) return float_of(uint32_t(bits) << 16);
  uint32_t sign = uint32_t(bits & 0x8000u) << 16, exponent = bits >> 10 & 31, rest = bits & 1023;
  if (exponent == 31) return float_of(sign | 0x7f800000u | rest << 13);
  if (exponent == 0) return (sign != 0 ? -1.0f : 1.0f) * float(rest) * float_of(0x33800000u);  // times 2^-24
  return float_of(sign | (exponent + 112) << 23 | rest << 13);
}

static uint16_t half_of(float value) {
  uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return uint16_t(sign | 0x7e00u);
  if (size >= 0x477ff000u) return uint16_t(sign | 0x7c00u);  // 65520 and more
  if (size < 0x38800000u) {                                   // below 2^-14: whole multiples of 2^-24
    float whole = float_of(size) * 16777216.0f + 8388608.0f;  // rounded to one, ties to even
    return uint16_t(sign | (bits_of(whole) & 0x7ffu));
  }
  uint32_t rounded = size - 0x38000000u + 0xfffu + (size >> 13 & 1u);
  return uint16_t(sign | rounded >> 13);
}

static uint16_t bfloat_of(float value) {
  uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return uint16_t(bits >> 16 | 0x40u);
  return uint16_t((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static void store(char *at, int type, float value) {
  if (type == R_32F) {
    memcpy(at, &value, 4);
    return;
  }
  uint16_t bits = type == R_16F ? half_of(value) : bfloat_of(value);
  memcpy(at, &bits, 2);
}

// Workspaces that a product uses now: two at once would spoil each other's numbers.
struct Busy {
  explicit Busy(uintptr_t at) : workspace(at) {
    std::lock_guard<std::mutex> hold(lock());
    alone = workspace == 0 || all().insert(workspace).second;
  }
  ~Busy() {
    std::lock_guard<std::mutex> hold(lock());
    if (alone && workspace != 0) all().erase(workspace);
  }
  static std::mutex &lock() {
    static std::mutex &the_one = *new std::mutex;
    return the_one;
  }
  static std::set<uintptr_t> &all() {
    static auto &the_one = *new std::set<uintptr_t>;
    return the_one;
  }
  const uintptr_t workspace;
  bool alone = true;
};

static bool reach(const Matrix &matrix, void *context, bool written, char **at) {
  *at = nullptr;
  if (matrix.bytes() == 0) return true;
  Place place;
  CUresult code = memory().find(matrix.address, matrix.bytes(), context, &place);
  bool good = code == 0 && (place.kind == Place::Device || (place.kind == Place::Pinned && place.mapped));
  *at = place.bytes;
  return good && (place.writable || !written);
}

static CUresult multiply(const Product &product, const Stream &stream) {
  const auto &[a, b, c, alpha, beta, workspace, workspace_bytes, context] = product;
  Busy busy(workspace);
  if (!busy.alone) {
    report("two products of cuBLAS ran at once with the workspace at %#zx", size_t(workspace));
    return CUDA_ERROR_ILLEGAL_ADDRESS;
  }
  // By its number, not by an address, which may stand for no delay at all in a whole process.
  static std::atomic<uint64_t> products{0};
  stream.dawdle(products++ << 22);
  if (config().idle) return CUDA_SUCCESS;
  std::shared_lock<std::shared_mutex> hold(memory().lock);
  char *from_a, *from_b, *to;
  Place work;
  bool good = reach(a, context, false, &from_a) && reach(b, context, false, &from_b) && reach(c, context, true, &to);
  if (good && workspace != 0) good = memory().find(workspace, workspace_bytes, context, &work) == 0;
  if (!good) {
    hold.unlock();
    report("a product of cuBLAS ran past the end of its memory, or with memory that was freed");
    return CUDA_ERROR_ILLEGAL_ADDRESS;
  }
  for (const Matrix *one : {&a, &b, &c})
    if (one->address % one->size() != 0) return CUDA_ERROR_MISALIGNED_ADDRESS;
  if (workspace != 0) memset(work.bytes, 0xa5, std::min<uint64_t>(workspace_bytes, 4096));
  uint64_t inner = a.rows, parts = c.columns > 4 ? 2 : 1;
  for (uint64_t column = 0; column < c.columns; column++) {
    for (uint64_t row = 0; row < c.rows; row++) {
      const char *left = from_a + row * uint64_t(a.stride) * a.size();
      const char *right = from_b + column * uint64_t(b.stride) * b.size();
      float sums[2] = {0, 0};
      for (uint64_t i = 0; i < inner; i++)
        sums[i % parts] += load(left + i * a.size(), a.type) * load(right + i * b.size(), b.type);
      char *target = to + (column * uint64_t(c.stride) + row) * c.size();
      float before = beta == 0 ? 0 : beta * load(target, c.type);
      store(target, c.type, alpha * (sums[0] + sums[1]) + before);
    }
  }
  return CUDA_SUCCESS;
}

static std::shared_ptr<BlasHandle> find_blas(void *handle) { return state().blas_handles.find(handle); }

// A table's guard without a context: cuBLAS has words of its own for what is wrong.
struct BlasScope : Scope {
  explicit BlasScope(Fn function) : Scope(function, Needs::Nothing) {
    if (fails()) return;
    context = current_context();
    if (context == nullptr) code = BLAS_NOT_INITIALIZED;
    else if (context->lost != 0) code = BLAS_EXECUTION_FAILED;
  }
};

static bool types_fit(int a, int b, int c) {
  bool known = a == R_32F || a == R_16F || a == R_16BF;
  return known && a == b && (c == a || c == R_32F);
}

}  // namespace mock

using namespace mock;

MOCK_EXPORT int cublasGetProperty(int which, int *value) {
  Scope scope(Fn_cublasGetProperty, Needs::Nothing);
  if (scope.fails()) return scope.code;
  if (value == nullptr || which < 0 || which > 2) return BLAS_INVALID_VALUE;
  *value = which == 0 ? config().cublas_major : 0;
  return BLAS_SUCCESS;
}

MOCK_EXPORT int cublasCreate_v2(void **made) {
  BlasScope scope(Fn_cublasCreate_v2);
  if (scope.fails()) return scope.code;
  if (made == nullptr) return BLAS_NOT_INITIALIZED;
  auto handle = std::make_shared<BlasHandle>();
  handle->context = scope.context;
  handle->stream = find_stream(scope.context, nullptr);
  *made = state().blas_handles.add(handle);
  return BLAS_SUCCESS;
}

MOCK_EXPORT int cublasDestroy_v2(void *handle) {
  BlasScope scope(Fn_cublasDestroy_v2);
  if (scope.fails()) return scope.code;
  return state().blas_handles.remove(handle) == nullptr ? BLAS_NOT_INITIALIZED : BLAS_SUCCESS;
}

// A workspace is for one stream: another one starts with the library's own again.
MOCK_EXPORT int cublasSetStream_v2(void *handle, CUstream in) {
  BlasScope scope(Fn_cublasSetStream_v2);
  if (scope.fails()) return scope.code;
  auto blas = find_blas(handle);
  auto stream = find_stream(scope.context, in);
  if (blas == nullptr) return BLAS_NOT_INITIALIZED;
  if (stream == nullptr || stream->context != blas->context) return BLAS_INVALID_VALUE;
  blas->stream = stream;
  blas->workspace = blas->workspace_bytes = 0;
  return BLAS_SUCCESS;
}

MOCK_EXPORT int cublasSetWorkspace_v2(void *handle, void *workspace, size_t bytes) {
  BlasScope scope(Fn_cublasSetWorkspace_v2);
  if (scope.fails()) return scope.code;
  auto blas = find_blas(handle);
  if (blas == nullptr) return BLAS_NOT_INITIALIZED;
  auto address = reinterpret_cast<uintptr_t>(workspace);
  if (address % 256 != 0) return BLAS_INVALID_VALUE;
  blas->workspace = address;
  blas->workspace_bytes = bytes;
  return BLAS_SUCCESS;
}

// Only what the device asks for: C = alpha * Aᵀ B + beta * C, by columns, sums in float.
MOCK_EXPORT int cublasGemmEx(void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a,
                             int a_type, int lda, const void *b, int b_type, int ldb, const void *beta, void *c,
                             int c_type, int ldc, int compute, int algorithm) {
  BlasScope scope(Fn_cublasGemmEx);
  if (scope.fails()) return scope.code;
  auto blas = find_blas(handle);
  if (blas == nullptr) return BLAS_NOT_INITIALIZED;
  if (blas->context != scope.context || alpha == nullptr || beta == nullptr) return BLAS_INVALID_VALUE;
  if (m < 0 || n < 0 || k < 0 || lda < std::max(1, k) || ldb < std::max(1, k) || ldc < std::max(1, m))
    return BLAS_INVALID_VALUE;
  if (op_a != OP_T || op_b != OP_N || compute != COMPUTE_32F || algorithm != -1 || !types_fit(a_type, b_type, c_type))
    return BLAS_NOT_SUPPORTED;
  if (m == 0 || n == 0) return BLAS_SUCCESS;
  auto matrix = [](const void *at, int type, int stride, int rows, int columns) {
    return Matrix{reinterpret_cast<uintptr_t>(at), type, stride, uint64_t(rows), uint64_t(columns)};
  };
  Product product{matrix(a, a_type, lda, k, m), matrix(b, b_type, ldb, k, n), matrix(c, c_type, ldc, m, n), 0, 0,
                  blas->workspace, blas->workspace_bytes, scope.context->handle};
  memcpy(&product.alpha, alpha, 4);
  memcpy(&product.beta, beta, 4);
  auto stream = blas->stream;
  if (stream->capture != nullptr && product.workspace == 0) {
    report("a product of cuBLAS was captured with the library's own workspace, which other streams use too");
    return BLAS_EXECUTION_FAILED;
  }
  if (refused_by_capture(Fn_cublasGemmEx, stream, true) != 0) return BLAS_EXECUTION_FAILED;
  CUresult later = scope.later;
  Operation operation;
  operation.run = [product, stream, later] { return later != 0 ? later : multiply(product, *stream); };
  submit(stream, std::move(operation));
  return BLAS_SUCCESS;
}
