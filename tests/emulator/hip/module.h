// SPDX-License-Identifier: Apache-2.0
// Functions: a kernel of a loaded code object, whichever way it was named.
#pragma once

#include <memory>

#include "dispatch.h"

namespace hip {

struct Function {
  std::shared_ptr<CodeObject> code;
  const Kernel* kernel;
};

// `handle` is a hipFunction_t or the host address of a __global__ function. Without code if it is
// neither.
Function find_function(const void* handle);

}  // namespace hip
