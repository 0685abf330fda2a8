// The exported functions of NVRTC.
#include "nvrtc.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

using namespace mock;

using nvrtcResult = int;
using nvrtcProgram = void *;

#define NVRTC_RESULTS(R)                                                                           \
  R(NVRTC_SUCCESS, 0) R(NVRTC_ERROR_OUT_OF_MEMORY, 1) R(NVRTC_ERROR_PROGRAM_CREATION_FAILURE, 2)   \
  R(NVRTC_ERROR_INVALID_INPUT, 3) R(NVRTC_ERROR_INVALID_PROGRAM, 4) R(NVRTC_ERROR_INVALID_OPTION, 5) \
  R(NVRTC_ERROR_COMPILATION, 6) R(NVRTC_ERROR_BUILTIN_OPERATION_FAILURE, 7) R(NVRTC_ERROR_INTERNAL_ERROR, 11)

enum : nvrtcResult {
#define NVRTC_NUMBER(name, number) name = number,
  NVRTC_RESULTS(NVRTC_NUMBER)
#undef NVRTC_NUMBER
};

MOCK_EXPORT nvrtcResult nvrtcVersion(int *major, int *minor) {
  Scope scope(Fn_nvrtcVersion, Needs::Nothing);
  if (scope.fails()) return scope.code;
  if (major == nullptr || minor == nullptr) return NVRTC_ERROR_INVALID_INPUT;
  Config now = config();
  *major = now.nvrtc_major;
  *minor = now.nvrtc_minor;
  return NVRTC_SUCCESS;
}

MOCK_EXPORT const char *nvrtcGetErrorString(nvrtcResult code) {
  Scope scope(Fn_nvrtcGetErrorString, Needs::Nothing);
  switch (code) {
#define NVRTC_NAME(name, number) \
  case number:                   \
    return #name;
    NVRTC_RESULTS(NVRTC_NAME)
  }
  return "NVRTC_ERROR unknown";
}

MOCK_EXPORT nvrtcResult nvrtcCreateProgram(nvrtcProgram *made, const char *source, const char *name, int headers,
                                           const char *const *, const char *const *) {
  Scope scope(Fn_nvrtcCreateProgram, Needs::Nothing);
  if (scope.fails()) return scope.code;
  if (made == nullptr || source == nullptr || headers != 0) return NVRTC_ERROR_INVALID_INPUT;
  auto program = std::make_shared<Program>();
  program->source = source;
  program->name = name == nullptr ? "default_program" : name;
  *made = state().programs.add(program);
  return NVRTC_SUCCESS;
}

MOCK_EXPORT nvrtcResult nvrtcDestroyProgram(nvrtcProgram *handle) {
  Scope scope(Fn_nvrtcDestroyProgram, Needs::Nothing);
  if (scope.fails()) return scope.code;
  if (handle == nullptr || state().programs.remove(*handle) == nullptr) return NVRTC_ERROR_INVALID_PROGRAM;
  *handle = nullptr;
  return NVRTC_SUCCESS;
}

static std::vector<int> architectures() {
  if (config().nvrtc_major < 13) return {50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90};
  return {75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121};
}

MOCK_EXPORT nvrtcResult nvrtcGetNumSupportedArchs(int *count) {
  Scope scope(Fn_nvrtcGetNumSupportedArchs, Needs::Nothing);
  if (scope.fails()) return scope.code;
  if (count == nullptr) return NVRTC_ERROR_INVALID_INPUT;
  *count = int(architectures().size());
  return NVRTC_SUCCESS;
}

MOCK_EXPORT nvrtcResult nvrtcGetSupportedArchs(int *list) {
  Scope scope(Fn_nvrtcGetSupportedArchs, Needs::Nothing);
  if (scope.fails()) return scope.code;
  if (list == nullptr) return NVRTC_ERROR_INVALID_INPUT;
  for (int one : architectures()) *list++ = one;
  return NVRTC_SUCCESS;
}

// The value of `--name=value`, or of `-name=value`; null where an option is another.
static const char *value_of(const char *option, const char *name) {
  while (*option == '-') option++;
  size_t length = strlen(name);
  return strncmp(option, name, length) == 0 && option[length] == '=' ? option + length + 1 : nullptr;
}

// `name=value` as `name value`; a name alone stands for 1.
static std::string macro_of(const std::string &given) {
  size_t at = given.find('=');
  return at == std::string::npos ? given + " 1" : given.substr(0, at) + " " + given.substr(at + 1);
}

static bool is_yes_or_no(const char *value) { return strcmp(value, "true") == 0 || strcmp(value, "false") == 0; }

// False where NVRTC would not know the option. With contraction allowed, as it is unless it is forbidden, the compiler
// contracts too where the machine can.
static bool read_option(const char *option, CompileOptions *options, bool *contract) {
  const char *value;
  if ((value = value_of(option, "gpu-architecture")) != nullptr || (value = value_of(option, "arch")) != nullptr) {
    bool known = strncmp(value, "compute_", 8) == 0 || strncmp(value, "sm_", 3) == 0;
    options->target = known ? atoi(strchr(value, '_') + 1) : 0;
    options->machine_code = value[0] == 's';
    auto all = architectures();
    return std::find(all.begin(), all.end(), options->target) != all.end();
  }
  if ((value = value_of(option, "fmad")) != nullptr) {
    *contract = strcmp(value, "true") == 0;
    return is_yes_or_no(value);
  }
  for (const char *name : {"ftz", "prec-div", "prec-sqrt"})
    if ((value = value_of(option, name)) != nullptr) return is_yes_or_no(value);
  if ((value = value_of(option, "std")) != nullptr) {
    for (const char *known : {"c++11", "c++14", "c++17", "c++20"})
      if (strcmp(value, known) == 0) return options->flags.push_back(std::string("-std=") + value), true;
    return false;
  }
  if ((value = value_of(option, "define-macro")) != nullptr) return options->macros.push_back(macro_of(value)), true;
  if (strncmp(option, "-D", 2) == 0 && option[2] != 0) return options->macros.push_back(macro_of(option + 2)), true;
  for (const char *known : {"--device-as-default-execution-space", "-default-device", "--disable-warnings", "-w",
                            "--generate-line-info", "-lineinfo", "--restrict", "-restrict"})
    if (strcmp(option, known) == 0) return true;
  return false;
}

MOCK_EXPORT nvrtcResult nvrtcCompileProgram(nvrtcProgram handle, int count, const char *const *given) {
  Scope scope(Fn_nvrtcCompileProgram, Needs::Nothing);
  auto program = state().programs.find(handle);
  if (program == nullptr) return NVRTC_ERROR_INVALID_PROGRAM;
  std::lock_guard<std::mutex> hold(program->lock);
  if (scope.fails()) {
    program->log = "a failure that a test asked for\n";
    return scope.code;
  }
  CompileOptions options;
  options.flags.emplace_back("-std=c++17");
  bool contract = true;
  program->compiled = false;
  for (int i = 0; i < count; i++) {
    if (given[i] != nullptr && read_option(given[i], &options, &contract)) continue;
    program->log = std::string("nvrtc: error: unrecognized option ") + (given[i] == nullptr ? "" : given[i]) + "\n";
    return NVRTC_ERROR_INVALID_OPTION;
  }
  options.flags.emplace_back(contract ? "-ffp-contract=fast" : "-ffp-contract=off");
#if defined(__x86_64__)
  if (contract && __builtin_cpu_supports("fma")) options.flags.emplace_back("-mfma");
#endif
  program->log.clear();
  std::string object = compile_text(*program, options, &program->log);
  if (object.empty()) return NVRTC_ERROR_COMPILATION;
  Config now = config();
  program->ptx = write_ptx({options.target, now.nvrtc_major * 1000 + now.nvrtc_minor * 10, object});
  program->cubin = options.machine_code ? write_ptx({options.target, 0, object}) : "";
  program->compiled = true;
  return NVRTC_SUCCESS;
}

// Sizes count the byte after the text.
static nvrtcResult get(Fn function, nvrtcProgram handle, std::string Program::*text, bool made, size_t *size, char *to) {
  Scope scope(function, Needs::Nothing);
  if (scope.fails()) return scope.code;
  auto program = state().programs.find(handle);
  if (program == nullptr) return NVRTC_ERROR_INVALID_PROGRAM;
  std::lock_guard<std::mutex> hold(program->lock);
  if (made && !program->compiled) return NVRTC_ERROR_INVALID_PROGRAM;
  if (size == nullptr && to == nullptr) return NVRTC_ERROR_INVALID_INPUT;
  const std::string &held = (*program).*text;
  if (size != nullptr) *size = held.size() + 1;
  if (to != nullptr) memcpy(to, held.c_str(), held.size() + 1);
  return NVRTC_SUCCESS;
}

MOCK_EXPORT nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t *size) {
  return get(Fn_nvrtcGetProgramLogSize, program, &Program::log, false, size, nullptr);
}
MOCK_EXPORT nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char *log) {
  return get(Fn_nvrtcGetProgramLog, program, &Program::log, false, nullptr, log);
}
// Of 0 bytes where no machine code was asked for.
MOCK_EXPORT nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, size_t *size) {
  nvrtcResult result = get(Fn_nvrtcGetCUBINSize, program, &Program::cubin, true, size, nullptr);
  if (result == NVRTC_SUCCESS && *size == 1) *size = 0;
  return result;
}
MOCK_EXPORT nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char *cubin) {
  return get(Fn_nvrtcGetCUBIN, program, &Program::cubin, true, nullptr, cubin);
}
MOCK_EXPORT nvrtcResult nvrtcGetPTXSize(nvrtcProgram program, size_t *size) {
  return get(Fn_nvrtcGetPTXSize, program, &Program::ptx, true, size, nullptr);
}
MOCK_EXPORT nvrtcResult nvrtcGetPTX(nvrtcProgram program, char *ptx) {
  return get(Fn_nvrtcGetPTX, program, &Program::ptx, true, nullptr, ptx);
}
