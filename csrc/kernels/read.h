// SPDX-License-Identifier: Apache-2.0
// Arguments of the read kernel, the same on the host and on the device.
#pragma once

namespace jax_mla {

// Reads every byte once, which is what decode is held against: the exclusive or of all words is
// that of the sums.
struct ReadArguments {
  const void* source;         // aligned to 16 bytes
  unsigned long long pieces;  // of 16 bytes
  unsigned* sums;             // [blocks, kReadSums]
  int blocks;                 // of threads
};

constexpr int kReadThreads = 256;
constexpr int kReadLanes = 32;  // that share a sum
constexpr int kReadSums = kReadThreads / kReadLanes;

}  // namespace jax_mla
