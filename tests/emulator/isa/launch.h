// SPDX-License-Identifier: Apache-2.0
// Running a kernel over a grid.
#pragma once
#include <vector>

#include "code_object.h"
#include "context.h"
#include "emu.h"

namespace emu {

// What a launch did to one allocation or extent.
struct TrafficTotal {
  std::string name;
  uint64_t address, read, written, read_distinct, written_distinct;
};

struct LaunchResult {
  emu_counters counters{};
  std::vector<TrafficTotal> traffic;
};

LaunchResult run_launch(Context &context, CodeObject &code, const emu_launch_config &config);

}  // namespace emu
