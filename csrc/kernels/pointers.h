// SPDX-License-Identifier: Apache-2.0
// Arguments of the pointers kernel, the same on the host and on the device.
#pragma once

namespace jax_mla {

// AITER's persistent kernels take their two lists through a pair of addresses in device memory. XLA
// moves buffers from one execution to the next, so the pair is written before every such launch.
struct PointersArguments {
  const int* work_indptr;
  const int* work_info;
  unsigned long long* pair;  // [2], the addresses of the two; 16-byte aligned
};

// A single thread.
constexpr int kPointersThreads = 1;

}  // namespace jax_mla
