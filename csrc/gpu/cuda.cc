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
constexpr int kMaxSharedMemoryPerBlockOptin = 97;
// CUfunction_attribute
constexpr int kSharedSizeBytes = 1;
constexpr int kMaxDynamicSharedSizeBytes = 8;
// CUtensorMapDataType, CUtensorMapSwizzle, CUtensorMapL2promotion
constexpr int kUint8 = 0;
constexpr int kSwizzle64 = 2;
constexpr int kSwizzle128 = 3;
constexpr int kPromote128 = 2;

// CUlaunchAttribute and CUlaunchConfig
struct LaunchAttribute {
  int id;
  int padding;
  union {
    int on;
    char bytes[64];
  } value;
};
constexpr int kProgrammaticStreamSerialization = 6;
struct LaunchConfig {
  unsigned grid[3];
  unsigned block[3];
  unsigned shared_bytes;
  Stream stream;
  LaunchAttribute* attributes;
  unsigned num_attributes;
};

class Cuda final : public Driver {
 public:
  explicit Cuda(Library& library) {
    library_ = library.path();
    library.Get("cuModuleLoadData", &table_.module_load_data);
    library.Get("cuModuleGetFunction", &table_.module_get_function);
    library.Get("cuLaunchKernel", &table_.launch_kernel);
    library.Get("cuLaunchKernelEx", &launch_kernel_ex_);
    library.Get("cuFuncGetAttribute", &func_get_attribute_);
    library.Get("cuFuncSetAttribute", &func_set_attribute_);
    library.Get("cuTensorMapEncodeTiled", &tensor_map_encode_tiled_);
    library.Get("cuCtxGetDevice", &ctx_get_device_);
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

  Status MapLines(const void* start, uint64_t lines, uint32_t line_bytes, uint32_t box_lines,
                  void* map) const override {
    const uint64_t sizes[] = {line_bytes, lines}, strides[] = {line_bytes};
    const uint32_t box[] = {line_bytes, box_lines}, steps[] = {1, 1};
    return JAX_MLA_CHECK_DRIVER(tensor_map_encode_tiled_(
        map, kUint8, 2, const_cast<void*>(start), sizes, strides, box, steps, 0,
        line_bytes == 128 ? kSwizzle128 : kSwizzle64, kPromote128, 0));
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

  Status AllowSharedMemory(Function function) const override {
    int device = 0, most = 0, declared = 0;
    Status status = JAX_MLA_CHECK_DRIVER(ctx_get_device_(&device));
    if (!status.ok()) return status;
    status = JAX_MLA_CHECK_DRIVER(
        device_get_attribute_(&most, kMaxSharedMemoryPerBlockOptin, device));
    if (!status.ok()) return status;
    status = JAX_MLA_CHECK_DRIVER(func_get_attribute_(&declared, kSharedSizeBytes, function));
    if (!status.ok()) return status;
    return JAX_MLA_CHECK_DRIVER(
        func_set_attribute_(function, kMaxDynamicSharedSizeBytes, most - declared));
  }

  int LaunchOverlapping(Function function, Grid grid, Block block, Stream stream,
                        void** parameters) const override {
    LaunchAttribute attribute = {kProgrammaticStreamSerialization, 0, {1}};
    const LaunchConfig config = {{grid.x, grid.y, grid.z}, {block.threads, 1, 1},
                                 block.shared_bytes,       stream,
                                 &attribute,               1};
    return launch_kernel_ex_(&config, function, parameters, nullptr);
  }

  std::string ErrorText(int code) const override {
    const char* name = nullptr;
    const char* text = nullptr;
    get_error_name_(code, &name);
    get_error_string_(code, &text);
    return std::string(name ? name : "unknown error") + ", " + (text ? text : std::to_string(code));
  }

  int (*launch_kernel_ex_)(const LaunchConfig*, Function, void**, void**);
  int (*func_get_attribute_)(int*, int, Function);
  int (*func_set_attribute_)(Function, int, int);
  int (*tensor_map_encode_tiled_)(void*, int, uint32_t, void*, const uint64_t*, const uint64_t*,
                                  const uint32_t*, const uint32_t*, int, int, int, int);
  int (*ctx_get_device_)(int*);
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
