// SPDX-License-Identifier: Apache-2.0
// XLA FFI handlers for tests on ROCm: they launch kernels of a code object on all their buffers.
#include <dlfcn.h>

#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;

// The few HIP functions used, from the library that JAX's plugin has loaded.
struct Hip {
  void* library = dlopen("libamdhip64.so.7", RTLD_NOW | RTLD_NOLOAD);
  template <typename Function>
  Function* get(const char* name) const {
    return reinterpret_cast<Function*>(library ? dlsym(library, name) : nullptr);
  }
  using Handle = void*;
  int (*module_load)(Handle*, const char*) = get<int(Handle*, const char*)>("hipModuleLoad");
  int (*get_function)(Handle*, Handle, const char*) =
      get<int(Handle*, Handle, const char*)>("hipModuleGetFunction");
  int (*launch)(Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Handle,
                void**, void**) =
      get<int(Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Handle,
              void**, void**)>("hipModuleLaunchKernel");
  int (*stream_create)(Handle*, unsigned) =
      get<int(Handle*, unsigned)>("hipStreamCreateWithFlags");
  int (*event_create)(Handle*, unsigned) = get<int(Handle*, unsigned)>("hipEventCreateWithFlags");
  int (*event_record)(Handle, Handle) = get<int(Handle, Handle)>("hipEventRecord");
  int (*stream_wait)(Handle, Handle, unsigned) =
      get<int(Handle, Handle, unsigned)>("hipStreamWaitEvent");
  // Only the emulated runtime has it.
  void (*extents)(const void*, size_t, const char*, int) =
      get<void(const void*, size_t, const char*, int)>("jax_mla_debug_extents");
};

const Hip& hip() {
  static const Hip functions;
  return functions;
}

struct Buffer {
  void* data;
  size_t bytes;
  std::string name;
  int access;  // 1 read, 2 write, 3 both
};

ffi::Error Check(int code, const std::string& what) {
  if (code == 0) return ffi::Error::Success();
  return ffi::Error::Internal(what + " failed with HIP error " + std::to_string(code));
}

#define RETURN_IF_ERROR(expression)            \
  do {                                         \
    ffi::Error error = (expression);           \
    if (error.failure()) return error;         \
  } while (false)

ffi::Error Collect(ffi::RemainingArgs operands, ffi::RemainingRets results,
                   std::vector<Buffer>* buffers) {
  for (size_t i = 0; i < operands.size(); ++i) {
    const auto operand = operands.get<ffi::AnyBuffer>(i);
    if (!operand) return operand.error();
    buffers->push_back({operand->untyped_data(), operand->size_bytes(),
                        "operand " + std::to_string(i), 1});
  }
  for (size_t i = 0; i < results.size(); ++i) {
    auto result = results.get<ffi::AnyBuffer>(i);
    if (!result) return result.error();
    buffers->push_back({(*result)->untyped_data(), (*result)->size_bytes(),
                        "result " + std::to_string(i), 3});
  }
  return ffi::Error::Success();
}

// These tests run on one device, so a module is loaded once.
ffi::Error Find(const std::string& path, const std::string& kernel, void** function) {
  static std::mutex mutex;
  static std::map<std::string, void*> modules;
  std::lock_guard lock(mutex);
  void*& module = modules[path];
  if (!module) RETURN_IF_ERROR(Check(hip().module_load(&module, path.c_str()), "loading " + path));
  return Check(hip().get_function(function, module, kernel.c_str()), "finding " + kernel);
}

ffi::Error LaunchAll(void* stream, const std::vector<Buffer>& buffers, std::string_view path,
                     std::string_view kernels, int64_t blocks, int64_t threads, bool confined) {
  std::vector<void*> arguments;
  for (const Buffer& buffer : buffers) arguments.push_back(const_cast<void**>(&buffer.data));
  std::istringstream names{std::string(kernels)};
  for (std::string name; names >> name;) {
    void* function = nullptr;
    RETURN_IF_ERROR(Find(std::string(path), name, &function));
    if (confined && hip().extents) {
      for (const Buffer& b : buffers) hip().extents(b.data, b.bytes, b.name.c_str(), b.access);
    }
    RETURN_IF_ERROR(Check(hip().launch(function, static_cast<unsigned>(blocks), 1, 1,
                                       static_cast<unsigned>(threads), 1, 1, 0, stream,
                                       arguments.data(), nullptr),
                          "launching " + name));
  }
  return ffi::Error::Success();
}

// The kernels that `kernels` names, one after the other, on the stream of the program.
ffi::Error Launch(void* stream, ffi::RemainingArgs operands, ffi::RemainingRets results,
                  std::string_view path, std::string_view kernels, int64_t blocks, int64_t threads,
                  bool confined) {
  std::vector<Buffer> buffers;
  RETURN_IF_ERROR(Collect(operands, results, &buffers));
  return LaunchAll(stream, buffers, path, kernels, blocks, threads, confined);
}

// The same on a stream of the handler's own; `forget` makes it forget to wait for that stream.
ffi::Error LaunchAside(void* stream, ffi::RemainingArgs operands, ffi::RemainingRets results,
                       std::string_view path, std::string_view kernels, int64_t blocks,
                       int64_t threads, bool forget) {
  static void* aside = nullptr;
  void *before = nullptr, *after = nullptr;
  constexpr unsigned kNonBlocking = 1;
  if (!aside) RETURN_IF_ERROR(Check(hip().stream_create(&aside, kNonBlocking), "a stream"));
  RETURN_IF_ERROR(Check(hip().event_create(&before, 0), "an event"));
  RETURN_IF_ERROR(Check(hip().event_create(&after, 0), "an event"));
  RETURN_IF_ERROR(Check(hip().event_record(before, stream), "recording"));
  RETURN_IF_ERROR(Check(hip().stream_wait(aside, before, 0), "waiting"));
  std::vector<Buffer> buffers;
  RETURN_IF_ERROR(Collect(operands, results, &buffers));
  RETURN_IF_ERROR(LaunchAll(aside, buffers, path, kernels, blocks, threads, false));
  if (forget) return ffi::Error::Success();
  RETURN_IF_ERROR(Check(hip().event_record(after, aside), "recording"));
  return Check(hip().stream_wait(stream, after, 0), "waiting");
}

#define BINDING(last)                        \
  ffi::Ffi::Bind()                           \
      .Ctx<ffi::PlatformStream<void*>>()     \
      .RemainingArgs()                       \
      .RemainingRets()                       \
      .Attr<std::string_view>("path")        \
      .Attr<std::string_view>("kernels")     \
      .Attr<int64_t>("blocks")               \
      .Attr<int64_t>("threads")              \
      .Attr<bool>(last)

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(test_launch, Launch, BINDING("confined"),
                              {ffi::Traits::kCmdBufferCompatible});
XLA_FFI_DEFINE_HANDLER_SYMBOL(test_launch_aside, LaunchAside, BINDING("forget"));
