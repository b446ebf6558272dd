// SPDX-License-Identifier: Apache-2.0
// The handlers besides the merge's, which ffi/merge.h has.
#pragma once

#include "ffi/stage.h"
#include "xla/ffi/api/ffi.h"

namespace jax_mla {

// jax_mla_append_cpu_v1, in append.cc.
XLA_FFI_Handler* AppendHandler();

// jax_mla_decode_kernel_cpu_v1, in decode_cpu.cc.
XLA_FFI_Handler* DecodeCpuHandler();

// jax_mla_metadata_rocm_v1, in metadata.cc.
StagedHandler MetadataHandler(Platform platform);

// jax_mla_decode_asm_rocm_v1, decode on AITER's kernels, in decode_asm.cc.
StagedHandler DecodeAsmHandler(Platform platform);

// jax_mla_decode_kernel_<platform>_v1, decode on our own kernels, in decode_kernel.cc.
StagedHandler DecodeKernelHandler(Platform platform);

// jax_mla_read_<platform>_v1, the plain read that decode is timed against, in read.cc.
StagedHandler ReadHandler(Platform platform);

}  // namespace jax_mla
