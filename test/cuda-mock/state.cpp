#include "state.h"

#include <unistd.h>

#include <cstdarg>
#include <cstdio>

#include "context.h"
#include "graphs.h"

namespace mock {

State &state() {
  static State &the_one = *new State;
  return the_one;
}

Config config() {
  State &all = state();
  std::lock_guard<std::mutex> hold(all.lock);
  return all.config;
}

void report(const char *format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  State &all = state();
  std::lock_guard<std::mutex> hold(all.lock);
  if (all.reports.size() < 64) all.reports.emplace_back(text);
}

static const char *const function_names[] = {
#define MOCK_FN_NAME(name) #name,
    MOCK_FUNCTIONS(MOCK_FN_NAME)
#undef MOCK_FN_NAME
};

const char *function_name(Fn function) { return function_names[function]; }

int function_number(const std::string &name) {
  for (uint32_t i = 0; i < Fn_count; i++)
    if (name == function_names[i]) return int(i);
  return -1;
}

// Serves the delays, and gives the first failure that this call meets.
static void meet_faults(Fn function, Scope &scope) {
  State &all = state();
  std::vector<std::shared_ptr<Fault>> faults;
  {
    std::lock_guard<std::mutex> hold(all.lock);
    if (all.faults.empty()) return;
    faults = all.faults;
  }
  for (const auto &fault : faults) {
    if (fault->function != function) continue;
    uint64_t count = ++fault->met;
    if (count < fault->nth || count - fault->nth >= fault->times) continue;
    if (fault->delay_us > 0) usleep(fault->delay_us);
    CUresult &met = fault->later ? scope.later : scope.code;
    if (met == 0) met = fault->code;
  }
}

Scope::Scope(Fn function, Needs needs) {
  State &all = state();
  ++all.calls[function];
  meet_faults(function, *this);
  if (fails() || needs == Needs::Nothing) return;
  if (!all.initialised) {
    code = CUDA_ERROR_NOT_INITIALIZED;
    return;
  }
  if (needs == Needs::Initialised) return;
  context = current_context();
  if (context == nullptr) code = CUDA_ERROR_INVALID_CONTEXT;
  else code = context->lost;
  if (!fails()) code = refused_by_captures(function, *context);
}

}  // namespace mock
