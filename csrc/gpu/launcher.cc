// SPDX-License-Identifier: Apache-2.0
#include "gpu/launcher.h"

#include "gpu/kernels.h"

namespace jax_mla {

Status Launcher::CheckArch(std::string_view arch) const {
  const Driver* driver = nullptr;
  Status status = FindDriver(&driver);
  if (!status.ok()) return status;
  std::string found;
  status = driver->GetArch(device_, &found);
  if (!status.ok() || found == arch) return status;
  return Status::Failure("the program was lowered for ", arch, " and ", driver->platform_name(),
                         " device ", device_, " is a ", found,
                         ": lower it again, with target=None or one of that arch");
}

Status Launcher::Launch(const char* source, const DeviceCode* code, const char* name, Grid grid,
                        Block block, const Arguments& arguments,
                        std::initializer_list<Extent> extents) const {
  const Driver* driver = nullptr;
  Status status = FindDriver(&driver);
  if (!status.ok()) return status;
  Function function = nullptr;
  status = code ? GetKernel(*driver, device_, *code, name, &function)
                : GetKernel(*driver, device_, source, name, &function);
  if (!status.ok() || stage_ == kInitialize) return status;
  const Driver::Scope scope(*driver, device_);
  if (!scope.status().ok()) return scope.status();
  status = driver->Launch(function, grid, block, stream_, arguments, extents);
  return status.ok() ? status : Status::Failure("kernel ", name, ": ", status.reason());
}

Status Launcher::MapLines(const void* start, uint64_t lines, uint32_t line_bytes,
                          uint32_t box_lines, void* map) const {
  if (stage_ == kInitialize) return {};
  const Driver* driver = nullptr;
  const Status status = FindDriver(&driver);
  return status.ok() ? driver->MapLines(start, lines, line_bytes, box_lines, map) : status;
}

Status Launcher::FindDriver(const Driver** driver) const {
  std::string reason;
  *driver = Driver::Find(platform_, &reason);
  if (*driver != nullptr) return {};
  return Status::Failure("no GPU driver: ", reason);
}

}  // namespace jax_mla
