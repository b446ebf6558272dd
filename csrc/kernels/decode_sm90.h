// SPDX-License-Identifier: Apache-2.0
// Arguments of Hopper's decode kernels, the same on the host and on the device.
#pragma once

#include "decode.h"

namespace jax_mla {

// What the driver makes for the copy engine (CUtensorMap).
struct alignas(64) TensorMap {
  unsigned char bytes[128];
};

// Of both stages. Partial results are not normalised, and partial_lse has two numbers of each row
// (partial_sm90.h).
struct DecodeSm90Arguments : DecodeArguments {
  int tile_rows;       // 8 or 16
  int box_shift;       // the keys of a box are 2^box_shift; they divide page_size
  TensorMap kv_lines;  // of the cache: lines of 128 bytes, of 64 for fp8, in boxes
};

constexpr int kSm90KvBlock = 64;
constexpr int kSm90PartBlocks = 1;
constexpr int kSm90BoxKeys = 16;  // at most
constexpr int kSm90Latent = 512;
constexpr int kSm90Width = 576;

// Stage 1: grid (workers) or (num_splits, tiles, batch).
constexpr int kSm90Threads = 640;
constexpr int kSm90SharedBytes = 194 * 1024;
// Stage 2: grid (pieces * waves / (8 * wave_pieces), tiles, batch), where `waves` share a piece or
// one takes `wave_pieces`: merge_sm90.hip.
constexpr int kSm90MergeThreads = 256;
constexpr int kSm90PieceRows = 8;
constexpr int kSm90PieceColumns = 16;

}  // namespace jax_mla
