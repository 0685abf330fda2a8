// Kernel texts compiled by the machine's C++ compiler in NVRTC's place.
#pragma once

#include "state.h"

namespace mock {

struct Program {
  std::string source, name;
  std::mutex lock;
  bool compiled = false;
  std::string log, ptx, cubin;  // of ptx and cubin, what was asked for
};

// What the mock's "PTX" and "cubin" say.
struct Ptx {
  int target = 0;     // 90 for sm_90
  int cuda = 0;       // whose PTX it is, as 13000; 0: machine code
  std::string object;
};

std::string write_ptx(const Ptx &ptx);
// False where a text is none of the mock's.
bool read_ptx(const char *text, Ptx *ptx);

struct CompileOptions {
  std::vector<std::string> flags;   // for the compiler
  std::vector<std::string> macros;  // as #define takes them
  int target = 75;
  bool machine_code = false;
};

// The object's path; empty, with the compiler's words in `log`, where the text has errors.
std::string compile_text(const Program &program, const CompileOptions &options, std::string *log);
// What comes in front of each text.
extern const char *const kernel_prelude;

}  // namespace mock
