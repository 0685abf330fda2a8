// A kernel text to a shared object: found kernels get an entry each, by which the mock calls them and knows the sizes
// of their arguments.
#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "nvrtc.h"
#include "random.h"

#ifndef MOCK_COMPILER
#define MOCK_COMPILER "c++"
#endif

extern char **environ;

namespace mock {

using Words = std::vector<std::string>;

// Beside the mock itself, whose place changes with its sources.
static std::string cache_folder() {
  Dl_info info;
  std::string path = dladdr(reinterpret_cast<void *>(&cache_folder), &info) != 0 ? info.dli_fname : "/tmp/mock";
  std::string folder = path.substr(0, path.rfind('/') + 1) + "kernels";
  mkdir(folder.c_str(), 0700);
  return folder;
}

static std::string read_all(const std::string &path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

static void write_all(const std::string &path, const std::string &text) { std::ofstream(path) << text; }

// Runs a program without a shell, its errors into a file; whether it ended well.
static bool run(const Words &words, const std::string &errors) {
  std::vector<char *> arguments;
  for (const auto &word : words) arguments.push_back(const_cast<char *>(word.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 2, errors.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  // Quotes in messages are plain ones.
  std::vector<char *> environment = {const_cast<char *>("LC_ALL=C")};
  for (char **one = environ; *one != nullptr; one++)
    if (strncmp(*one, "LC_ALL=", 7) != 0) environment.push_back(*one);
  environment.push_back(nullptr);
  pid_t child;
  int failed = posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) {
    write_all(errors, "the mock cannot run " + words[0] + "\n");
    return false;
  }
  int status = -1;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

struct FoundKernel {
  std::string name, bounds;  // bounds: an expression
};

static bool part_of_word(char one) { return isalnum(static_cast<unsigned char>(one)) != 0 || one == '_'; }

// Where the parenthesis that opens at `at` closes.
static size_t closing(const std::string &text, size_t at) {
  int depth = 0;
  for (; at < text.size(); at++) {
    if (text[at] == '(') depth++;
    if (text[at] == ')' && --depth == 0) break;
  }
  return at;
}

// Only such kernels are found by their names in a module.
static bool has_c_linkage(const std::string &text, size_t at) {
  const std::string before = text.substr(0, at);
  size_t start = before.find_last_of(";}{");
  const std::string own = before.substr(start == std::string::npos ? 0 : start);
  return own.find("extern \"C\"") != std::string::npos || before.find("extern \"C\" {") != std::string::npos;
}

// In preprocessed text, where macros stand no longer in the way: the word before the first parenthesis that is not of an
// attribute names the kernel.
static std::vector<FoundKernel> find_kernels(const std::string &text) {
  std::vector<FoundKernel> kernels;
  const std::string mark = "__global__";
  for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) {
    FoundKernel kernel{"", "0"};
    std::string word;
    for (size_t i = at + mark.size(); i < text.size() && text[i] != ';' && text[i] != '{'; i++) {
      if (part_of_word(text[i])) {
        if (!part_of_word(text[i - 1])) word.clear();
        word += text[i];
      }
      if (text[i] != '(') continue;
      size_t end = closing(text, i);
      if (word == "__launch_bounds__") {
        kernel.bounds = text.substr(i + 1, end - i - 1);
        kernel.bounds = kernel.bounds.substr(0, kernel.bounds.find(','));
      } else if (word != "__attribute__") {
        kernel.name = word;
        break;
      }
      i = end;
    }
    if (!kernel.name.empty() && has_c_linkage(text, at)) kernels.push_back(kernel);
  }
  return kernels;
}

static std::string epilogue(const std::vector<FoundKernel> &kernels) {
  std::ostringstream text;
  text << "\n#line 1 \"mock\"\n";
  for (const auto &kernel : kernels) {
    text << "static void mock_call_" << kernel.name << "(void **arguments) { decltype(mock_arguments(&" << kernel.name
         << "))::call(&" << kernel.name << ", arguments); }\n";
  }
  text << "static const MockKernel mock_kernels[] = {\n";
  for (const auto &kernel : kernels) {
    text << "  {\"" << kernel.name << "\", mock_call_" << kernel.name << ", decltype(mock_arguments(&" << kernel.name
         << "))::sizes, decltype(mock_arguments(&" << kernel.name << "))::count, unsigned(" << kernel.bounds << ")},\n";
  }
  text << "  {nullptr, nullptr, nullptr, 0, 0}};\n"
          "static __attribute__((section(\"mock_shared\"), used)) char mock_no_shared;\n"
          "extern char __start_mock_shared[] MOCK_HIDDEN, __stop_mock_shared[] MOCK_HIDDEN;\n"
          "extern \"C\" __attribute__((visibility(\"default\"))) const MockModule mock_module = {mock_kernels, "
       << kernels.size() << ", &mock_place, &mock_runtime, __start_mock_shared, __stop_mock_shared};\n";
  return text.str();
}

// `name:line:column: error: words` as `name(line): error: words`, and only the lines that say what is wrong.
static std::string as_nvrtc_says(const std::string &said, const std::string &name) {
  std::istringstream lines(said);
  std::ostringstream log;
  std::string line;
  int errors = 0;
  while (std::getline(lines, line)) {
    size_t kind = line.find(": error: ");
    bool error = kind != std::string::npos;
    if (!error) kind = line.find(": fatal error: ");
    if (kind == std::string::npos && (kind = line.find(": warning: ")) == std::string::npos) continue;
    errors += line.compare(kind, 11, ": warning: ") != 0;
    std::string place = line.substr(0, kind), words = line.substr(kind + 2);
    size_t column = place.rfind(':'), number = column == std::string::npos ? column : place.rfind(':', column - 1);
    if (number == std::string::npos) log << line << "\n";
    else log << place.substr(0, number) << "(" << place.substr(number + 1, column - number - 1) << "): " << words << "\n";
    log << "\n";
  }
  if (errors == 0) return said;
  log << errors << (errors == 1 ? " error" : " errors") << " detected in the compilation of \"" << name << "\".\n";
  return log.str();
}

static std::string digest_of(const std::string &text) {
  uint64_t first = 0xcbf29ce484222325, second = 0x9ae16a3b2f90404f;
  for (unsigned char byte : text) {
    first = (first ^ byte) * 0x100000001b3;
    second = mix(second ^ byte);
  }
  char name[40];
  snprintf(name, sizeof name, "%016llx%016llx", static_cast<unsigned long long>(first),
           static_cast<unsigned long long>(second));
  return name;
}

// In three steps, all files named after this attempt, so that threads and processes do not meet.
static bool build(const Program &program, const CompileOptions &options, const std::string &base, std::string *log) {
  // After the prelude, whose names they may share.
  std::string line, errors = base + ".log";
  for (const auto &macro : options.macros) line += "#define " + macro + "\n";
  line += "#line 1 \"" + program.name + "\"\n";
  const std::string arch = std::to_string(options.target * 10);
  Words common = {MOCK_COMPILER, "-x", "c++", "-nostdinc", "-nostdinc++", "-DMOCK_ARCH=" + arch};
  common.insert(common.end(), options.flags.begin(), options.flags.end());

  write_all(base + ".cu", line + program.source);
  Words words = common;
  for (const char *word : {"-E", "-P", "-D__CUDACC_RTC__=1", "-o"}) words.emplace_back(word);
  words.push_back(base + ".i");
  words.push_back(base + ".cu");
  bool good = run(words, errors);
  if (good) {
    auto kernels = find_kernels(read_all(base + ".i"));
    write_all(base + ".cpp", kernel_prelude + line + program.source + epilogue(kernels));
    words = common;
    for (const char *word : {"-c", "-O1", "-fPIC", "-w", "-fno-exceptions", "-fno-rtti", "-fno-builtin", "-fno-strict-aliasing",
                             "-fno-tree-vectorize", "-fvisibility=hidden", "-fsanitize=thread", "-o"})
      words.emplace_back(word);
    words.push_back(base + ".o");
    words.push_back(base + ".cpp");
    good = run(words, errors);
  }
  good = good && run({MOCK_COMPILER, "-shared", "-o", base + ".so", base + ".o", "-lm"}, errors);
  if (!good) *log = as_nvrtc_says(read_all(errors), program.name);
  for (const char *ending : {".cu", ".i", ".cpp", ".o", ".log"}) unlink((base + ending).c_str());
  return good;
}

std::string compile_text(const Program &program, const CompileOptions &options, std::string *log) {
  std::string key = program.name + '\0' + program.source + '\0' + std::to_string(options.target);
  for (const auto &flag : options.flags) key += '\0' + flag;
  for (const auto &macro : options.macros) key += '\0' + macro;
  const std::string folder = cache_folder(), object = folder + "/" + digest_of(key) + ".so";
  if (access(object.c_str(), R_OK) == 0) return object;
  static std::atomic<uint64_t> attempts{0};
  std::string base = folder + "/" + std::to_string(getpid()) + "-" + std::to_string(++attempts);
  if (!build(program, options, base, log)) return "";
  return rename((base + ".so").c_str(), object.c_str()) == 0 ? object : "";
}

static const char *const PTX_HEAD = "// made by the mock of NVRTC\n.version 8.0\n";

std::string write_ptx(const Ptx &ptx) {
  return PTX_HEAD + (".target sm_" + std::to_string(ptx.target)) + "\n// cuda " + std::to_string(ptx.cuda) +
         "\n// object " + ptx.object + "\n";
}

bool read_ptx(const char *text, Ptx *ptx) {
  std::string head = PTX_HEAD, all(text);
  const std::string target = ".target sm_", cuda = "// cuda ", object = "// object ";
  size_t at = all.find(target), version = all.find(cuda), from = all.find(object);
  if (all.compare(0, head.size(), head) != 0) return false;
  if (at == std::string::npos || version == std::string::npos || from == std::string::npos) return false;
  ptx->cuda = atoi(all.c_str() + version + cuda.size());
  ptx->target = atoi(all.c_str() + at + target.size());
  from += object.size();
  ptx->object = all.substr(from, all.find('\n', from) - from);
  return true;
}

}  // namespace mock
