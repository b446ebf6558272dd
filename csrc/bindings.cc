// SPDX-License-Identifier: Apache-2.0
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include "ffi/handlers.h"
#include "ffi/merge.h"
#include "gpu/device_code.h"
#include "gpu/driver.h"

namespace nb = nanobind;

namespace jax_mla {
namespace {

Platform ParsePlatform(const std::string& name) {
  if (name == "rocm") return Platform::kRocm;
  if (name == "cuda") return Platform::kCuda;
  throw nb::value_error(("platform: expected 'rocm' or 'cuda', got '" + name + "'").c_str());
}

}  // namespace

NB_MODULE(_native, m) {
  m.attr("ffi_api") = nb::make_tuple(XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR);

  m.def(
      "handlers",
      [] {
        const auto capsule = [](XLA_FFI_Handler* handler) {
          return nb::capsule(reinterpret_cast<void*>(handler));
        };
        const auto entry = [=](const char* platform, XLA_FFI_Handler* handler) {
          return nb::make_tuple(platform, capsule(handler));
        };
        const auto staged = [=](const char* platform, const StagedHandler& handler) {
          nb::dict stages;
          stages["initialize"] = capsule(handler.initialize);
          stages["execute"] = capsule(handler.execute);
          return nb::make_tuple(platform, stages);
        };
        nb::dict handlers;
        handlers["jax_mla_append_cpu_v1"] = entry("cpu", AppendHandler());
        handlers["jax_mla_decode_rocm_v1"] = entry("rocm", DecodeHandler());
        handlers["jax_mla_decode_cuda_v1"] = entry("cuda", DecodeHandler());
        handlers["jax_mla_merge_rocm_v1"] = staged("rocm", MergeHandler(Platform::kRocm));
        handlers["jax_mla_merge_cuda_v1"] = staged("cuda", MergeHandler(Platform::kCuda));
        return handlers;
      },
      "FFI handlers: name to (platform as in lowering, capsule or dictionary of stages).");

  m.def(
      "launches", [] { return nb::list(); },
      "(platform, implementation) pairs of decode that this build has device code for.");

  m.def(
      "driver",
      [](const std::string& platform) {
        std::string reason;
        const Driver* driver = Driver::Find(ParsePlatform(platform), &reason);
        return nb::make_tuple(driver != nullptr, driver ? driver->library() : reason);
      },
      "Whether the driver of 'rocm' or 'cuda' is there, and its library or the reason. Asked before "
      "JAX has looked for devices, it may find another library than JAX's plugin brings.");

  m.def(
      "device_code",
      [] {
        nb::dict codes;
        for (const DeviceCode& code : EmbeddedDeviceCode()) {
          codes[nb::make_tuple(code.name, code.arch)] = nb::make_tuple(
              code.sha256, nb::bytes(reinterpret_cast<const char*>(code.bytes), code.size));
        }
        return codes;
      },
      "Compiled kernels: (source, arch) to (SHA-256, bytes).");
}

}  // namespace jax_mla
