// SPDX-License-Identifier: Apache-2.0
// A context: registered memory and options.
#pragma once
#include <atomic>
#include <cstdint>

#include "memory.h"

namespace emu {

struct Options {
  int64_t threads = 1, resident = 1, quantum = 1, bounds = 1, waits = 1, uninitialised = 0;
  int64_t traffic = 1, max_instructions = 0, trace = 0;
};

struct Context {
  Options options;
  MemoryMap memory;
  std::atomic<uint8_t *> kernarg_track{nullptr};
};

}  // namespace emu
