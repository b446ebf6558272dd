// SPDX-License-Identifier: Apache-2.0
// One launch of a kernel, complete: nothing of the caller's is needed when it runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "abi.h"

namespace hip {

class CodeObject;
struct Kernel;

// Memory that a launch may touch; see jax_mla_debug_extents.
struct Extent {
  const void* start;
  size_t bytes;
  std::string name;
  int access;  // 1 read, 2 write
};

struct Launch {
  std::shared_ptr<const CodeObject> code;
  const Kernel* kernel;
  dim3 grid, block;  // in workgroups, in work-items
  uint32_t dynamic_lds;
  std::vector<uint8_t> arguments;
  std::vector<Extent> extents;
};

// Fills in `launch`. The arguments are `params`, one pointer for each, or `extra`, HIP's list of keys
// and values. `function` is a hipFunction_t or the host address of a __global__ function.
hipError_t make_launch(const void* function, dim3 grid, dim3 block, uint32_t dynamic_lds,
                       void** params, void** extra, Launch* launch);

}  // namespace hip
