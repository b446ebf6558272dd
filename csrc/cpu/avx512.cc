// SPDX-License-Identifier: Apache-2.0
// Compiled with -mavx512f -mavx512bw -mavx512dq -mavx512vl.
#include "cpu/fma.h"

namespace jax_mla::cpu {

const Kernel kAvx512 = {fma::Decode, MergeParts};

}  // namespace jax_mla::cpu
