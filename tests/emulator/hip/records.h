// SPDX-License-Identifier: Apache-2.0
// What ran, for whoever asked to have it recorded: launches with their counters, graphs, copies.
#pragma once

#include <cstddef>

#include "dispatch.h"
#include "emu.h"
#include "launch.h"

namespace hip {

// Called on the thread of the launch, before it launches anything else.
void record_launch(const Launch& launch, const emu_counters& counters);
void record_graph_launch();
void record_graph_node();
void record_module_load(const CodeObject& code);
void record_copy(size_t bytes);
void record_fill(size_t bytes);

}  // namespace hip
