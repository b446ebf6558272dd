// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>

#include "gpu/device_code.h"
#include "gpu/driver.h"

namespace jax_mla {

// Launches kernels on a stream, one after the other. XLA captures what a handler launches in a
// command buffer, where no module may be loaded; so it calls handlers twice, and the first time, to
// initialize, a launch only makes sure that its kernel is there.
class Launcher {
 public:
  enum Stage { kInitialize, kExecute };

  Launcher(Platform platform, int device, Stream stream, Stage stage)
      : platform_(platform), device_(device), stream_(stream), stage_(stage) {}

  // Whether the device is what a program was lowered for, "gfx942" or "sm_90".
  Status CheckArch(std::string_view arch) const;

  // The kernel `name` of the embedded `source`, with a struct as its only parameter.
  template <typename Struct>
  Status Launch(const char* source, const char* name, Grid grid, Block block,
                const Struct& arguments, std::initializer_list<Extent> extents) const {
    return Launch(source, nullptr, name, grid, block, {&arguments, sizeof arguments}, extents);
  }

  // The kernel `name` of `code`, with an argument block that the code object does not describe.
  template <typename Struct>
  Status LaunchRaw(const DeviceCode& code, const char* name, Grid grid, Block block,
                   const Struct& arguments, std::initializer_list<Extent> extents) const {
    return Launch(nullptr, &code, name, grid, block, {&arguments, sizeof arguments, true},
                  extents);
  }

  // Driver::MapLines, when it is time to launch.
  Status MapLines(const void* start, uint64_t lines, uint32_t line_bytes, uint32_t box_lines,
                  void* map) const;

 private:
  Status Launch(const char* source, const DeviceCode* code, const char* name, Grid grid,
                Block block, const Arguments& arguments,
                std::initializer_list<Extent> extents) const;
  Status FindDriver(const Driver** driver) const;

  Platform platform_;
  int device_;
  Stream stream_;
  Stage stage_;
};

}  // namespace jax_mla
