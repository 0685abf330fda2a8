#pragma once

#include <cstdint>

namespace mock {

uint64_t file_buffers();
// Forgets handles, buffers and openings.
void reset_files();

}  // namespace mock
