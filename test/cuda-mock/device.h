#pragma once

namespace mock {

// An attribute's value, which configuration may change; -1 where CUDA has none of that number.
int attribute(int device, int number);

}  // namespace mock
