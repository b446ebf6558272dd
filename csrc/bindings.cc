// SPDX-License-Identifier: Apache-2.0
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "aiter/code_objects.h"
#include "cpu/dispatch.h"
#include "ffi/handlers.h"
#include "ffi/merge.h"
#include "gpu/device_code.h"
#include "gpu/driver.h"
#include "workspace.h"

namespace nb = nanobind;

namespace {

using jax_mla::Platform;

nb::capsule Capsule(XLA_FFI_Handler* handler) {
  return nb::capsule(reinterpret_cast<void*>(handler));
}

void AddStaged(nb::dict& handlers, const char* op, Platform platform,
               jax_mla::StagedHandler (*make)(Platform)) {
  const char* name = platform == Platform::kRocm ? "rocm" : "cuda";
  const jax_mla::StagedHandler handler = make(platform);
  nb::dict stages;
  stages["initialize"] = Capsule(handler.initialize);
  stages["execute"] = Capsule(handler.execute);
  const std::string target = std::string("jax_mla_") + op + "_" + name + "_v1";
  handlers[target.c_str()] = nb::make_tuple(name, stages);
}

nb::dict Handlers() {
  nb::dict handlers;
  handlers["jax_mla_append_cpu_v1"] = nb::make_tuple("cpu", Capsule(jax_mla::AppendHandler()));
  handlers["jax_mla_decode_kernel_cpu_v1"] =
      nb::make_tuple("cpu", Capsule(jax_mla::DecodeCpuHandler()));
  AddStaged(handlers, "metadata", Platform::kRocm, jax_mla::MetadataHandler);
  AddStaged(handlers, "decode_asm", Platform::kRocm, jax_mla::DecodeAsmHandler);
  for (const Platform platform : {Platform::kRocm, Platform::kCuda}) {
    AddStaged(handlers, "decode_kernel", platform, jax_mla::DecodeKernelHandler);
    AddStaged(handlers, "merge", platform, jax_mla::MergeHandler);
    AddStaged(handlers, "read", platform, jax_mla::ReadHandler);
  }
  return handlers;
}

nb::list Launches() {
  nb::list launches;
  if (jax_mla::cpu::ChosenKernel() != nullptr) launches.append(nb::make_tuple("cpu", "kernel"));
  if (jax_mla::EmbeddedDeviceCode().empty()) return launches;
  launches.append(nb::make_tuple("rocm", "asm"));
  launches.append(nb::make_tuple("rocm", "kernel"));
  launches.append(nb::make_tuple("cuda", "kernel"));
  return launches;
}

nb::dict DeviceCode() {
  nb::dict codes;
  for (const jax_mla::DeviceCode& code : jax_mla::EmbeddedDeviceCode()) {
    codes[nb::make_tuple(code.name, code.arch)] = nb::make_tuple(
        code.sha256, nb::bytes(reinterpret_cast<const char*>(code.bytes), code.size));
  }
  return codes;
}

nb::tuple Driver(const std::string& platform) {
  if (platform != "rocm" && platform != "cuda") {
    throw nb::value_error(("platform: expected 'rocm' or 'cuda', got '" + platform + "'").c_str());
  }
  std::string reason;
  const jax_mla::Driver* driver =
      jax_mla::Driver::Find(platform == "rocm" ? Platform::kRocm : Platform::kCuda, &reason);
  return nb::make_tuple(driver != nullptr, driver ? driver->library() : reason);
}

void AddCodeObject(const std::string& sha256, const std::string& file, const std::string& arch,
                   const std::string& symbol, nb::bytes content) {
  jax_mla::aiter::AddCodeObject(sha256, file, arch, symbol, {content.c_str(), content.size()});
}

void UseInstructionSet(const std::string& name) {
  if (!jax_mla::cpu::Choose(name)) {
    throw nb::value_error(("this machine has no instruction set '" + name + "'").c_str());
  }
}

nb::tuple CarveWorkspace(int64_t rows, int64_t latent_dim, bool pointers, int64_t weights) {
  const jax_mla::Workspace w = jax_mla::CarveWorkspace(rows, latent_dim, pointers, weights);
  return nb::make_tuple(w.pointers, w.partial, w.partial_lse, w.bytes);
}

}  // namespace

NB_MODULE(_native, m) {
  m.attr("ffi_api") = nb::make_tuple(XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR);
  m.def("handlers", Handlers,
        "FFI handlers: name to (platform as in lowering, capsule or dictionary of stages).");
  m.def("launches", Launches,
        "(platform, implementation) pairs of decode that this build and machine have code for.");
  m.def("instruction_sets", jax_mla::cpu::InstructionSets,
        "Instruction sets that decode has code for and this machine has, best first.");
  m.def("use_instruction_set", UseInstructionSet, nb::arg("name"),
        "Makes decode on the CPU run on that one, in this process, for tests.");
  m.def("device_code", DeviceCode, "Compiled kernels: (source, arch) to (SHA-256, bytes).");
  m.def("driver", Driver,
        "Whether the driver of 'rocm' or 'cuda' is there, and its library or the reason. Asked "
        "before JAX has looked for devices, it may find another library than JAX's plugin brings.");
  m.def("add_code_object", AddCodeObject, nb::arg("sha256"), nb::arg("file"), nb::arg("arch"),
        nb::arg("symbol"), nb::arg("content"),
        "Makes one of AITER's code objects known to the handlers, by its hash.");
  m.def("carve_workspace", CarveWorkspace, nb::arg("rows"), nb::arg("latent_dim"),
        nb::arg("pointers"), nb::arg("weights"),
        "jax_mla.workspace.carve as the handlers have it, for tests.");
}
