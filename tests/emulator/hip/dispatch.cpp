// SPDX-License-Identifier: Apache-2.0
// Hands the HIP runtime's memory, code objects and launches to the interpreter.
#include "dispatch.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "error.h"
#include "records.h"
#include "settings.h"

namespace hip {
namespace {

// One for all devices, whose memory lies in one address space. Never destroyed.
emu_context* context() {
  static emu_context* const only = [] {
    emu_context* created = emu_create();
    emu_set_option(created, "threads", settings().threads);
    emu_set_option(created, "waits", settings().waits);
    emu_set_option(created, "uninitialised", settings().uninitialised);
    return created;
  }();
  return only;
}

// The runtime registers only what it has allocated itself, so a refusal is an error of its own.
void require(int failed) {
  if (!failed) return;
  std::fprintf(stderr, "emulated ROCm: %s\n", emu_last_error());
  std::abort();
}

bool is_hidden(const emu_argument_info& argument) {
  return std::strncmp(argument.kind, "hidden_", 7) == 0;
}

}  // namespace

void add_memory(const void* start, size_t bytes, const std::string& name) {
  require(emu_register(context(), start, bytes, name.c_str(), /*writable=*/1));
}

void remove_memory(const void* start) { require(emu_unregister(context(), start)); }

void mark_written(const void* start, size_t bytes) {
  if (settings().uninitialised) emu_mark_written(context(), start, bytes);
}

std::shared_ptr<CodeObject> CodeObject::load(const void* elf, size_t bytes) {
  emu_module* module = emu_load(context(), elf, bytes, settings().arch.c_str());
  return std::shared_ptr<CodeObject>(module ? new CodeObject(module) : nullptr);
}

CodeObject::CodeObject(emu_module* module) : module_(module) {
  for (size_t k = 0; k < emu_kernel_count(module); ++k) {
    Kernel kernel;
    require(emu_kernel(module, k, &kernel.info));
    kernel.name = kernel.info.name;
    for (size_t a = 0; a < kernel.info.arguments; ++a) {
      emu_argument_info argument;
      require(emu_kernel_argument(module, k, a, &argument));
      if (!is_hidden(argument)) kernel.arguments.push_back({argument.offset, argument.size});
    }
    kernels_[kernel.name] = kernel;
  }
}

CodeObject::~CodeObject() {
  for (const auto& [name, address] : variables_) remove_memory(address);
  emu_unload(module_);
}

const Kernel* CodeObject::kernel(const std::string& name) const {
  const auto found = kernels_.find(name);
  return found == kernels_.end() ? nullptr : &found->second;
}

void* CodeObject::variable(const std::string& name, size_t* bytes) {
  void* const address = emu_symbol(module_, name.c_str(), bytes);
  if (address && variables_.emplace(name, address).second) {
    add_memory(address, *bytes, "device variable " + name);
    mark_written(address, *bytes);
  }
  return address;
}

hipError_t dispatch(const Launch& launch) {
  std::vector<emu_extent> extents;
  for (const Extent& e : launch.extents) {
    extents.push_back({e.start, e.bytes, e.name.c_str(), e.access});
  }
  const dim3 grid = launch.grid, block = launch.block;
  const emu_launch_config config = {
      launch.kernel->name.c_str(), {grid.x, grid.y, grid.z},  {block.x, block.y, block.z},
      launch.dynamic_lds,          launch.arguments.data(),   launch.arguments.size(),
      extents.data(),              extents.size(),
  };
  emu_counters counters;
  if (emu_launch(launch.code->module_, &config, &counters)) {
    return fail(hipErrorLaunchFailure, emu_last_error());
  }
  record_launch(launch, counters);
  return hipSuccess;
}

}  // namespace hip
