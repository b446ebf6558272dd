// SPDX-License-Identifier: Apache-2.0
#include <nanobind/nanobind.h>

#include "ffi/handlers.h"
#include "gpu/device_code.h"

namespace nb = nanobind;

NB_MODULE(_native, m) {
  m.attr("ffi_api") = nb::make_tuple(XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR);

  m.def(
      "handlers",
      [] {
        const auto entry = [](const char* platform, XLA_FFI_Handler* handler) {
          return nb::make_tuple(platform, nb::capsule(reinterpret_cast<void*>(handler)));
        };
        nb::dict handlers;
        handlers["jax_mla_append_cpu_v1"] = entry("cpu", jax_mla::AppendHandler());
        handlers["jax_mla_decode_rocm_v1"] = entry("rocm", jax_mla::DecodeHandler());
        handlers["jax_mla_decode_cuda_v1"] = entry("cuda", jax_mla::DecodeHandler());
        return handlers;
      },
      "FFI handlers: name to (platform as in lowering, capsule).");

  m.def(
      "launches", [] { return nb::list(); },
      "(platform, implementation) pairs of decode that this build has device code for.");

  m.def(
      "device_code",
      [] {
        nb::dict codes;
        for (const jax_mla::DeviceCode& code : jax_mla::EmbeddedDeviceCode()) {
          codes[nb::make_tuple(code.name, code.arch)] = nb::make_tuple(
              code.sha256, nb::bytes(reinterpret_cast<const char*>(code.bytes), code.size));
        }
        return codes;
      },
      "Compiled kernels: (source, arch) to (SHA-256, bytes).");
}
