// SPDX-License-Identifier: Apache-2.0
// Writes the addresses of a plan's lists to memory.
#include "pointers.h"

#include "device.h"

namespace jax_mla {

KERNEL(kPointersThreads, 1) jax_mla_pointers(PointersArguments a) {
  a.pair[0] = reinterpret_cast<u64>(a.work_indptr);
  a.pair[1] = reinterpret_cast<u64>(a.work_info);
}

}  // namespace jax_mla
