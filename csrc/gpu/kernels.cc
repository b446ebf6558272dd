// SPDX-License-Identifier: Apache-2.0
#include "gpu/kernels.h"

#include <string>
#include <string_view>
#include <tuple>

#include "gpu/once_map.h"

namespace jax_mla {
namespace {

struct Loaded {
  Status status;
  void* handle = nullptr;  // a Module or Function
};

using ModuleKey = std::tuple<const Driver*, int, const DeviceCode*>;
using FunctionKey = std::tuple<const Driver*, int, const DeviceCode*, std::string>;
using SourceKey = std::tuple<const Driver*, int, std::string>;

const Loaded& LoadModule(const Driver& driver, int device, const DeviceCode& code) {
  static auto& modules = *new OnceMap<ModuleKey, Loaded>;
  return modules.Get(ModuleKey{&driver, device, &code}, [&] {
    Loaded module;
    module.status = driver.LoadModule(code.bytes, &module.handle);
    return module;
  });
}

Loaded LoadFunction(const Driver& driver, int device, const DeviceCode& code, const char* name) {
  Loaded function;
  const Driver::Scope scope(driver, device);
  function.status = scope.status();
  if (function.status.ok()) {
    const Loaded& module = LoadModule(driver, device, code);
    function.status = module.status.ok()
                          ? driver.GetFunction(module.handle, name, &function.handle)
                          : module.status;
  }
  if (!function.status.ok()) {
    function.status =
        Status::Failure("kernel ", name, " (", code.name, ", ", code.arch, ", SHA-256 ",
                        std::string_view(code.sha256).substr(0, 12), ") on ",
                        driver.platform_name(), " device ", device, ": ", function.status.reason());
  }
  return function;
}

// What our device code for a device is compiled for. sm_90a is for Hopper alone; every other NVIDIA
// GPU compiles sm_80's PTX.
std::string_view CompiledArch(std::string_view arch) {
  if (arch == "sm_90") return "sm_90a";
  return arch.substr(0, 3) == "sm_" ? "sm_80" : arch;
}

struct Embedded {
  Status status;
  const DeviceCode* code = nullptr;
};

Embedded FindEmbedded(const Driver& driver, int device, std::string_view source) {
  Embedded found;
  std::string arch;
  found.status = driver.GetArch(device, &arch);
  if (!found.status.ok()) return found;
  const std::string_view compiled = CompiledArch(arch);
  for (const DeviceCode& code : EmbeddedDeviceCode()) {
    if (code.name == source && code.arch == compiled) found.code = &code;
  }
  if (found.code == nullptr) {
    found.status = Status::Failure("this build of jax_mla has no ", source, " kernel for ", arch);
  }
  return found;
}

}  // namespace

Status GetKernel(const Driver& driver, int device, const DeviceCode& code, const char* name,
                 Function* function) {
  static auto& functions = *new OnceMap<FunctionKey, Loaded>;
  const Loaded& found =
      functions.Get(std::tuple(&driver, device, &code, std::string_view(name)),
                    [&] { return LoadFunction(driver, device, code, name); });
  *function = found.handle;
  return found.status;
}

Status GetKernel(const Driver& driver, int device, const char* source, const char* name,
                 Function* function) {
  static auto& codes = *new OnceMap<SourceKey, Embedded>;
  const Embedded& found = codes.Get(std::tuple(&driver, device, std::string_view(source)),
                                    [&] { return FindEmbedded(driver, device, source); });
  if (!found.status.ok()) return found.status;
  return GetKernel(driver, device, *found.code, name, function);
}

}  // namespace jax_mla
