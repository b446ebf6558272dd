// SPDX-License-Identifier: Apache-2.0
// The operations that the buffer, flat, global and scratch instructions have in common.
#pragma once
#include <string>

#include "handlers.h"
#include "memory_operation.h"

namespace emu {

// Binds `prefix` + "load_dword", "store_short", "atomic_add" and so on. Loads to LDS are marked.
void add_loads_and_stores(Bindings &b, const std::string &prefix, Handler handler);
void add_atomics(Bindings &b, const std::string &prefix, Handler handler);
void add_loads_to_lds(Bindings &b, const std::string &prefix, Handler handler);

}  // namespace emu
