// SPDX-License-Identifier: Apache-2.0
// HIP, from the library that JAX's plugin has loaded.
#include <cstddef>
#include <cstring>

#include "gpu/driver.h"
#include "gpu/library.h"
#include "gpu/once_map.h"

namespace jax_mla {
namespace {

// Size and a member of hipDeviceProp_tR0600, a layout that its name fixes.
constexpr size_t kPropertiesBytes = 1472;
constexpr size_t kArchNameOffset = 1160;
constexpr size_t kArchNameBytes = 256;

class Hip final : public Driver {
 public:
  explicit Hip(Library& library) {
    library_ = library.path();
    library.Get("hipModuleLoadData", &table_.module_load_data);
    library.Get("hipModuleGetFunction", &table_.module_get_function);
    library.Get("hipModuleLaunchKernel", &table_.launch_kernel);
    library.Get("hipGetDevice", &get_device_);
    library.Get("hipSetDevice", &set_device_);
    library.Get("hipGetDevicePropertiesR0600", &get_properties_);
    library.Get("hipGetErrorName", &get_error_name_);
    library.Get("hipGetErrorString", &get_error_string_);
    library.Get("hipGetLastError", &get_last_error_);
    library.GetOptional("jax_mla_debug_extents", &table_.debug_extents);
    table_.launch_parameter_end = reinterpret_cast<void*>(3);
  }

  const char* platform_name() const override { return "ROCm"; }

  Status GetArch(int device, std::string* arch) const override {
    const Arch& found = archs_.Get(device, [&] { return ReadArch(device); });
    *arch = found.name;
    return found.status;
  }

 private:
  struct Arch {
    Status status;
    std::string name;
  };

  Arch ReadArch(int device) const {
    Arch arch;
    alignas(8) char properties[kPropertiesBytes] = {};
    arch.status = JAX_MLA_CHECK_DRIVER(get_properties_(properties, device));
    // "gfx942:sramecc+:xnack-" up to the first colon
    const char* name = properties + kArchNameOffset;
    arch.name.assign(name, strnlen(name, kArchNameBytes));
    arch.name = arch.name.substr(0, arch.name.find(':'));
    return arch;
  }

  Status Enter(int device, intptr_t* previous) const override {
    int current = 0;
    Status status = JAX_MLA_CHECK_DRIVER(get_device_(&current));
    if (!status.ok() || current == device) return status;
    status = JAX_MLA_CHECK_DRIVER(set_device_(device));
    if (status.ok()) *previous = current;
    return status;
  }

  void Leave(intptr_t previous) const override {
    if (previous != kUnchanged) set_device_(static_cast<int>(previous));
  }

  std::string ErrorText(int code) const override {
    return std::string(get_error_name_(code)) + ", " + get_error_string_(code);
  }

  // XLA looks at the last error after launches of its own.
  void ClearError() const override { get_last_error_(); }

  int (*get_device_)(int*);
  int (*set_device_)(int);
  int (*get_properties_)(void*, int);
  const char* (*get_error_name_)(int);
  const char* (*get_error_string_)(int);
  int (*get_last_error_)();
  mutable OnceMap<int, Arch> archs_;
};

}  // namespace

const Driver* FindHip(std::string* reason) {
  Library library("libamdhip64.so", {"libamdhip64.so.7", "libamdhip64.so.6"});
  if (!library) {
    *reason = library.reason();
    return nullptr;
  }
  static const Hip hip(library);
  if (library.missing().empty()) return &hip;
  *reason = library.path() + " lacks " + library.missing();
  return nullptr;
}

}  // namespace jax_mla
