// SPDX-License-Identifier: Apache-2.0
// HIP's modules, functions and global variables, and the fat binaries that clang registers.
#include "module.h"

#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <unordered_map>

#include "bundle.h"
#include "error.h"
#include "records.h"
#include "settings.h"

namespace hip {
namespace {

struct Module {
  std::shared_ptr<CodeObject> code;
  std::map<std::string, Function> functions;  // handed out
};

// Loaded when one of its kernels or variables is first asked for.
struct FatBinary {
  const void* image;
  std::shared_ptr<CodeObject> code;
};

// What the host program names by an address of its own.
struct HostSymbol {
  FatBinary* binary;
  std::string name;
};

struct Registry {
  std::mutex mutex;
  std::unordered_map<const void*, std::unique_ptr<Module>> modules;
  std::unordered_map<const void*, Function*> functions;
  std::unordered_map<const void*, HostSymbol> host_functions, host_variables;
};
// Never destroyed: libraries unregister their fat binaries when the process is ending.
Registry& registry() {
  static Registry& only = *new Registry;
  return only;
}

std::shared_ptr<CodeObject> load(const void* image) {
  std::string why;
  const std::vector<uint8_t> elf = find_code_object(image, settings().target(), &why);
  if (elf.empty()) {
    fail(hipErrorNoBinaryForGpu, "cannot load " + why);
    return nullptr;
  }
  std::shared_ptr<CodeObject> code = CodeObject::load(elf.data(), elf.size());
  if (!code) fail(hipErrorInvalidImage, std::string("cannot load: ") + emu_last_error());
  return code;
}

// With the registry's mutex held.
std::shared_ptr<CodeObject> code_of(const HostSymbol& symbol) {
  if (!symbol.binary->code) symbol.binary->code = load(symbol.binary->image);
  return symbol.binary->code;
}

Function find_host_function(const void* address) {
  const auto found = registry().host_functions.find(address);
  if (found == registry().host_functions.end()) return {};
  const std::shared_ptr<CodeObject> code = code_of(found->second);
  const Kernel* const kernel = code ? code->kernel(found->second.name) : nullptr;
  return kernel ? Function{code, kernel} : Function{};
}

Function find_locked(const void* handle) {
  const auto found = registry().functions.find(handle);
  return found == registry().functions.end() ? find_host_function(handle) : *found->second;
}

// A handle for `function` that lives as long as the process or, in a module, as the module.
hipFunction_t hand_out(Function* function) {
  registry().functions[function] = function;
  return reinterpret_cast<hipFunction_t>(function);
}

}  // namespace

Function find_function(const void* handle) {
  std::lock_guard lock(registry().mutex);
  return find_locked(handle);
}

}  // namespace hip

using namespace hip;

HIP_API hipError_t hipModuleLoadData(hipModule_t* out, const void* image) {
  std::lock_guard lock(registry().mutex);
  auto module = std::make_unique<Module>();
  module->code = load(image);
  if (!module->code) return fail(hipErrorInvalidImage);
  record_module_load(*module->code);
  *out = reinterpret_cast<hipModule_t>(module.get());
  registry().modules[module.get()] = std::move(module);
  return hipSuccess;
}
HIP_API hipError_t hipModuleLoadDataEx(hipModule_t* out, const void* image, unsigned,
                                       hipJitOption*, void**) {
  return hipModuleLoadData(out, image);
}
HIP_API hipError_t hipModuleLoad(hipModule_t* out, const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(hipErrorFileNotFound);
  const std::vector<char> image{std::istreambuf_iterator<char>(file), {}};
  return image.size() < 64 ? fail(hipErrorInvalidImage) : hipModuleLoadData(out, image.data());
}
HIP_API hipError_t hipModuleUnload(hipModule_t handle) {
  std::lock_guard lock(registry().mutex);
  const auto found = registry().modules.find(handle);
  if (found == registry().modules.end()) return fail(hipErrorInvalidHandle);
  for (auto& [name, function] : found->second->functions) registry().functions.erase(&function);
  registry().modules.erase(found);
  return hipSuccess;
}
HIP_API hipError_t hipModuleGetFunction(hipFunction_t* out, hipModule_t handle, const char* name) {
  std::lock_guard lock(registry().mutex);
  const auto found = registry().modules.find(handle);
  if (found == registry().modules.end()) return fail(hipErrorInvalidHandle);
  Module& module = *found->second;
  const Kernel* const kernel = module.code->kernel(name);
  if (!kernel) return fail(hipErrorNotFound);
  *out = hand_out(&module.functions.try_emplace(name, Function{module.code, kernel}).first->second);
  return hipSuccess;
}
HIP_API hipError_t hipModuleGetGlobal(hipDeviceptr_t* out, size_t* bytes, hipModule_t handle,
                                      const char* name) {
  std::lock_guard lock(registry().mutex);
  const auto found = registry().modules.find(handle);
  if (found == registry().modules.end()) return fail(hipErrorInvalidHandle);
  size_t size = 0;
  void* const address = found->second->code->variable(name, &size);
  if (!address) return fail(hipErrorNotFound);
  if (out) *out = address;
  if (bytes) *bytes = size;
  return hipSuccess;
}

HIP_API hipError_t hipGetFuncBySymbol(hipFunction_t* out, const void* symbol) {
  std::lock_guard lock(registry().mutex);
  static auto& found = *new std::map<const void*, Function>;
  const auto [entry, is_new] = found.try_emplace(symbol);
  if (is_new) entry->second = find_host_function(symbol);
  if (!entry->second.code) return fail(hipErrorInvalidDeviceFunction);
  *out = hand_out(&entry->second);
  return hipSuccess;
}
HIP_API hipError_t hipGetSymbolAddress(void** out, const void* symbol) {
  std::lock_guard lock(registry().mutex);
  const auto found = registry().host_variables.find(symbol);
  if (found == registry().host_variables.end()) return fail(hipErrorInvalidSymbol);
  const std::shared_ptr<CodeObject> code = code_of(found->second);
  size_t bytes;
  *out = code ? code->variable(found->second.name, &bytes) : nullptr;
  return *out ? hipSuccess : fail(hipErrorInvalidSymbol);
}

HIP_API hipError_t hipFuncGetAttribute(int* value, hipFunction_attribute attribute,
                                       hipFunction_t handle) {
  const Function function = find_function(handle);
  if (!function.code) return fail(hipErrorInvalidDeviceFunction);
  const emu_kernel_info& info = function.kernel->info;
  switch (attribute) {
    case HIP_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      *value = static_cast<int>(info.max_workgroup_size);
      return hipSuccess;
    case HIP_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
      *value = static_cast<int>(info.static_lds);
      return hipSuccess;
    case HIP_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
      *value = static_cast<int>(info.private_bytes);
      return hipSuccess;
    case HIP_FUNC_ATTRIBUTE_NUM_REGS:
      *value = static_cast<int>(info.vgprs);
      return hipSuccess;
    case HIP_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      *value = static_cast<int>(settings().lds_bytes() - info.static_lds);
      return hipSuccess;
  }
  *value = 0;
  return hipSuccess;
}
HIP_API hipError_t hipFuncGetAttributes(hipFuncAttributes* out, const void* handle) {
  const Function function = find_function(handle);
  if (!function.code) return fail(hipErrorInvalidDeviceFunction);
  const emu_kernel_info& info = function.kernel->info;
  *out = {};
  out->maxThreadsPerBlock = static_cast<int>(info.max_workgroup_size);
  out->numRegs = static_cast<int>(info.vgprs);
  out->sharedSizeBytes = info.static_lds;
  out->localSizeBytes = info.private_bytes;
  return hipSuccess;
}
HIP_API hipError_t hipFuncSetAttribute(const void*, hipFuncAttribute, int) { return hipSuccess; }

// --- What clang's host code calls for __global__ functions and __device__ variables ---------------

HIP_API void** __hipRegisterFatBinary(const void* data) {
  const auto* const wrapper = static_cast<const FatBinaryWrapper*>(data);
  if (wrapper->magic != kFatBinaryMagic) return nullptr;
  return reinterpret_cast<void**>(new FatBinary{wrapper->image, nullptr});
}
HIP_API void __hipUnregisterFatBinary(void**) {}  // symbols may be asked for until the very end
HIP_API void __hipRegisterFunction(void** binary, const void* host, char*, const char* name,
                                   unsigned, void*, void*, dim3*, dim3*, int*) {
  std::lock_guard lock(registry().mutex);
  if (binary) {
    registry().host_functions[host] = {reinterpret_cast<FatBinary*>(binary), name};
  }
}
HIP_API void __hipRegisterVar(void** binary, void* host, char*, char* name, int, size_t, int,
                              int) {
  std::lock_guard lock(registry().mutex);
  if (binary) {
    registry().host_variables[host] = {reinterpret_cast<FatBinary*>(binary), name};
  }
}
