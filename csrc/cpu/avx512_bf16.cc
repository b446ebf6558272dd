// SPDX-License-Identifier: Apache-2.0
// Compiled with -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16.
#include "cpu/bf16_dot.h"
#include "cpu/fma.h"

namespace jax_mla::cpu {
namespace {

void Decode(const Part& part) {
  const bool dot = part.kv_dtype != Dtype::kFloat32 && part.kv_dtype != Dtype::kFloat16;
  return dot ? bf16_dot::Decode(part) : fma::Decode(part);
}

}  // namespace

const Kernel kAvx512Bf16 = {Decode, MergeParts};

}  // namespace jax_mla::cpu
