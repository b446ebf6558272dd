// SPDX-License-Identifier: Apache-2.0
#include "gpu/driver.h"

#include <cstring>

namespace jax_mla {
namespace {

struct Found {
  explicit Found(const Driver* (*find)(std::string*)) : driver(find(&reason)) {}
  std::string reason;
  const Driver* driver;
};

// Keys of the list of raw arguments, the same for both vendors.
void* const kBufferPointer = reinterpret_cast<void*>(1);
void* const kBufferSize = reinterpret_cast<void*>(2);

}  // namespace

const Driver* Driver::Find(Platform platform, std::string* reason) {
  const auto get = [reason](const Found& found) {
    *reason = found.reason;
    return found.driver;
  };
  if (platform == Platform::kRocm) {
    static const Found hip(FindHip);
    return get(hip);
  }
  static const Found cuda(FindCuda);
  return get(cuda);
}

Status Driver::LoadModule(const void* image, Module* module) const {
  return JAX_MLA_CHECK_DRIVER(table_.module_load_data(module, image));
}

Status Driver::GetFunction(Module module, const char* name, Function* function) const {
  const Status status = JAX_MLA_CHECK_DRIVER(table_.module_get_function(function, module, name));
  return status.ok() ? AllowSharedMemory(*function) : status;
}

Status Driver::MapLines(const void*, uint64_t, uint32_t, uint32_t, void*) const {
  return Status::Failure(platform_name(), " has no tensor copies");
}

int Driver::LaunchOverlapping(Function function, Grid grid, Block block, Stream stream,
                              void** parameters) const {
  return table_.launch_kernel(function, grid.x, grid.y, grid.z, block.threads, 1, 1,
                              block.shared_bytes, stream, parameters, nullptr);
}

Status Driver::Launch(Function function, Grid grid, Block block, Stream stream,
                      const Arguments& arguments, std::initializer_list<Extent> extents) const {
  if (table_.debug_extents != nullptr) {
    for (const Extent& e : extents) {
      if (e.start != nullptr) table_.debug_extents(e.start, e.bytes, e.name, e.access);
    }
  }
  void* data = const_cast<void*>(arguments.data);
  size_t bytes = arguments.bytes;
  void* parameters[] = {data};
  void* raw[] = {kBufferPointer, data, kBufferSize, &bytes, table_.launch_parameter_end};
  if (block.overlaps) {
    return JAX_MLA_CHECK_DRIVER(LaunchOverlapping(function, grid, block, stream, parameters));
  }
  return JAX_MLA_CHECK_DRIVER(
      table_.launch_kernel(function, grid.x, grid.y, grid.z, block.threads, 1, 1,
                           block.shared_bytes, stream, arguments.raw ? nullptr : parameters,
                           arguments.raw ? raw : nullptr));
}

Status Driver::Check(int code, const char* call, const char* file, int line) const {
  if (code == 0) return {};
  ClearError();
  // The name of what was called, without how.
  std::string name(call, std::strcspn(call, "("));
  const char* slash = std::strrchr(file, '/');
  return Status::Failure(platform_name(), " ", name.substr(name.rfind('.') + 1), ": ",
                         ErrorText(code), " (", slash ? slash + 1 : file, ":", line, ")");
}

}  // namespace jax_mla
