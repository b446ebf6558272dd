// SPDX-License-Identifier: Apache-2.0
// CUDA's driver API. Contexts are the devices' primary ones, which are XLA's too.
#include "gpu/driver.h"
#include "gpu/library.h"
#include "gpu/once_map.h"

namespace jax_mla {
namespace {

using Context = void*;

// CUdevice_attribute
constexpr int kComputeCapabilityMajor = 75;
constexpr int kComputeCapabilityMinor = 76;

class Cuda final : public Driver {
 public:
  explicit Cuda(Library& library) {
    library_ = library.path();
    library.Get("cuModuleLoadData", &table_.module_load_data);
    library.Get("cuModuleGetFunction", &table_.module_get_function);
    library.Get("cuLaunchKernel", &table_.launch_kernel);
    library.Get("cuInit", &init_);
    library.Get("cuDeviceGet", &device_get_);
    library.Get("cuDeviceGetAttribute", &device_get_attribute_);
    library.Get("cuDevicePrimaryCtxRetain", &retain_primary_context_);
    library.Get("cuCtxGetCurrent", &get_current_context_);
    library.Get("cuCtxPushCurrent_v2", &push_context_);
    library.Get("cuCtxPopCurrent_v2", &pop_context_);
    library.Get("cuGetErrorName", &get_error_name_);
    library.Get("cuGetErrorString", &get_error_string_);
  }

  Status Init() const { return JAX_MLA_CHECK_DRIVER(init_(0)); }

  const char* platform_name() const override { return "CUDA"; }

  Status GetArch(int device, std::string* arch) const override {
    const Device& found = Find(device);
    *arch = found.arch;
    return found.status;
  }

 private:
  struct Device {
    Status status;
    std::string arch;
    Context context = nullptr;
  };

  const Device& Find(int device) const {
    return devices_.Get(device, [&] { return Open(device); });
  }

  Device Open(int ordinal) const {
    Device found;
    int device = 0, major = 0, minor = 0;
    const auto check = [&](Status status) { return (found.status = std::move(status)).ok(); };
    if (check(JAX_MLA_CHECK_DRIVER(device_get_(&device, ordinal))) &&
        check(JAX_MLA_CHECK_DRIVER(
            device_get_attribute_(&major, kComputeCapabilityMajor, device))) &&
        check(JAX_MLA_CHECK_DRIVER(
            device_get_attribute_(&minor, kComputeCapabilityMinor, device))) &&
        check(JAX_MLA_CHECK_DRIVER(retain_primary_context_(&found.context, device)))) {
      found.arch = "sm_" + std::to_string(major) + std::to_string(minor);
    }
    return found;
  }

  Status Enter(int device, intptr_t* previous) const override {
    const Device& wanted = Find(device);
    if (!wanted.status.ok()) return wanted.status;
    Context current = nullptr;
    Status status = JAX_MLA_CHECK_DRIVER(get_current_context_(&current));
    if (!status.ok() || current == wanted.context) return status;
    status = JAX_MLA_CHECK_DRIVER(push_context_(wanted.context));
    if (status.ok()) *previous = 0;  // on the stack of contexts
    return status;
  }

  void Leave(intptr_t previous) const override {
    Context popped = nullptr;
    if (previous != kUnchanged) pop_context_(&popped);
  }

  std::string ErrorText(int code) const override {
    const char* name = nullptr;
    const char* text = nullptr;
    get_error_name_(code, &name);
    get_error_string_(code, &text);
    return std::string(name ? name : "unknown error") + ", " + (text ? text : std::to_string(code));
  }

  int (*init_)(unsigned);
  int (*device_get_)(int*, int);
  int (*device_get_attribute_)(int*, int, int);
  int (*retain_primary_context_)(Context*, int);
  int (*get_current_context_)(Context*);
  int (*push_context_)(Context);
  int (*pop_context_)(Context*);
  int (*get_error_name_)(int, const char**);
  int (*get_error_string_)(int, const char**);
  mutable OnceMap<int, Device> devices_;
};

}  // namespace

const Driver* FindCuda(std::string* reason) {
  Library library("libcuda.so", {"libcuda.so.1"});
  if (!library) {
    *reason = library.reason();
    return nullptr;
  }
  static const Cuda cuda(library);
  if (!library.missing().empty()) {
    *reason = library.path() + " lacks " + library.missing();
    return nullptr;
  }
  const Status status = cuda.Init();
  *reason = status.reason();
  return status.ok() ? &cuda : nullptr;
}

}  // namespace jax_mla
