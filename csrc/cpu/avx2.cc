// SPDX-License-Identifier: Apache-2.0
// Compiled with -mavx2 -mfma -mf16c.
#include "cpu/fma.h"

namespace jax_mla::cpu {

const Kernel kAvx2 = {fma::Decode, MergeParts};

}  // namespace jax_mla::cpu
