// SPDX-License-Identifier: Apache-2.0
// Handlers on GPUs: one function serves both platforms and both of XLA's stages.
#pragma once

#include "ffi/error.h"
#include "gpu/launcher.h"
#include "xla/ffi/api/ffi.h"

namespace jax_mla {

// A handler's entry points: XLA calls `initialize` at every execution, before anything is launched
// or a command buffer replayed, and `execute` to launch or to capture.
struct StagedHandler {
  XLA_FFI_Handler* initialize;
  XLA_FFI_Handler* execute;
};

// What a handler does: decodes buffers and attributes, and gives the launcher what to launch.
template <typename Attributes>
using GpuOp = xla::ffi::Error (*)(const Launcher&, xla::ffi::RemainingArgs,
                                  xla::ffi::RemainingRets, const Attributes&);

template <typename Attributes, GpuOp<Attributes> op, Platform platform,
          xla::ffi::ExecutionStage stage>
XLA_FFI_Error* GpuEntry(XLA_FFI_CallFrame* frame) {
  namespace ffi = xla::ffi;
  constexpr auto kStage =
      stage == ffi::ExecutionStage::kExecute ? Launcher::kExecute : Launcher::kInitialize;
  static auto* handler =
      ffi::Ffi::Bind<stage>()
          .template Ctx<ffi::PlatformStream<void*>>()
          .template Ctx<ffi::DeviceOrdinal>()
          .RemainingArgs()
          .RemainingRets()
          .template Attrs<Attributes>()
          .To(
              [](Stream stream, int32_t device, ffi::RemainingArgs operands,
                 ffi::RemainingRets results, const Attributes& attributes) {
                return op(Launcher(platform, device, stream, kStage), operands, results,
                          attributes);
              },
              {ffi::Traits::kCmdBufferCompatible})
          .release();
  return handler->Call(frame);
}

template <typename Attributes, GpuOp<Attributes> op>
StagedHandler MakeStagedHandler(Platform platform) {
  using Stage = xla::ffi::ExecutionStage;
  if (platform == Platform::kRocm) {
    return {GpuEntry<Attributes, op, Platform::kRocm, Stage::kInitialize>,
            GpuEntry<Attributes, op, Platform::kRocm, Stage::kExecute>};
  }
  return {GpuEntry<Attributes, op, Platform::kCuda, Stage::kInitialize>,
          GpuEntry<Attributes, op, Platform::kCuda, Stage::kExecute>};
}

}  // namespace jax_mla
