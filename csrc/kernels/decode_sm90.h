// SPDX-License-Identifier: Apache-2.0
// Arguments of Hopper's decode kernels, the same on the host and on the device.
#pragma once

#include "decode.h"

namespace jax_mla {

// What the driver makes for the copy engine (CUtensorMap).
struct alignas(64) TensorMap {
  unsigned char bytes[128];
};

// Both stages, in tiles of 8 or 16 rows.
struct DecodeSm90Arguments : DecodeArguments {
  TensorMap kv_lines;  // of the cache: lines of 128 bytes, of 64 for fp8, in boxes of box_keys keys
  int box_keys;        // divides page_size and 16
  int merge_waves;     // that share a row's 128 columns in stage 2: 1, or all 8 of a block of threads
};

constexpr int kSm90Keys = 64;
constexpr int kSm90PartBlocks = 1;
constexpr int kSm90Latent = 512;
constexpr int kSm90Width = 576;

// Stage 1: grid (workers) or (num_splits, tiles, batch).
constexpr int kSm90Threads = 384;
constexpr int kSm90SharedBytes = 174 * 1024;
// Stage 2: grid (heads * kSm90MergeChunks * merge_waves / 8, q_len, batch), the first rounded up.
constexpr int kSm90MergeThreads = 256;
constexpr int kSm90MergeChunks = 4;

}  // namespace jax_mla
