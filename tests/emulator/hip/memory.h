// SPDX-License-Identifier: Apache-2.0
// The registry of allocations: what the interpreter and HIP's own copies may touch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "abi.h"

namespace hip {

struct Allocation {
  uintptr_t start;
  size_t bytes;
  hipMemoryType type;
  int device;
  unsigned flags = 0;
  bool owned = true;   // false: registered, not allocated
  bool freed = false;  // its addresses are never given out again

  bool holds(uintptr_t address) const { return address >= start && address < start + bytes; }
};

// The allocation, live or freed, that `address` lies in.
std::optional<Allocation> find_allocation(const void* address);

// Why `bytes` from `address` must not be touched by a copy, or nothing. What lies in no allocation is
// the host's own memory, about which nothing is known.
std::string refusal(const void* address, size_t bytes);

}  // namespace hip
