// SPDX-License-Identifier: Apache-2.0
// A plain read, as fast as memory gives: neighbouring threads read neighbouring pieces, and each has
// several on their way.
#include "read.h"

#include "device.h"

namespace jax_mla {

KERNEL(kReadThreads, 4) jax_mla_read(ReadArguments a) {
  constexpr u64 kLoads = 4;
  const auto* source = static_cast<const u32x4*>(a.source);
  const u64 stride = static_cast<u64>(a.blocks) * kReadThreads;
  u64 at = static_cast<u64>(block_id_x()) * kReadThreads + thread_id();
  u32x4 sum = {};
  for (; at + (kLoads - 1) * stride < a.pieces; at += kLoads * stride) {
    u32x4 pieces[kLoads];
#pragma unroll
    for (u64 i = 0; i < kLoads; ++i) pieces[i] = source[at + i * stride];
#pragma unroll
    for (u64 i = 0; i < kLoads; ++i) sum ^= pieces[i];
  }
  for (; at < a.pieces; at += stride) sum ^= source[at];

  u32 total = sum.x ^ sum.y ^ sum.z ^ sum.w;
  for (u32 mask = kReadLanes / 2; mask > 0; mask /= 2) total ^= shuffle(total, lane_id() ^ mask);
  if (thread_id() % kReadLanes == 0) {
    a.sums[block_id_x() * kReadSums + thread_id() / kReadLanes] = total;
  }
}

}  // namespace jax_mla
