// SPDX-License-Identifier: Apache-2.0
// How Hopper's partial results lie: sums of values by weights, in pieces of 8 rows and 16 columns, each
// as the lanes of a wave hold it, so that 512 bytes are written and read at once.
#pragma once

#include "decode_sm90.h"
#include "device.h"

namespace jax_mla {

// Element k of a lane's four is in row lane % 4 * 2 + k % 2 of its piece's eight, and in this column
// of all: products of an fp8 cache hold pairs of columns.
DEVICE u32 sm90_column(u32 columns, u32 lane, u32 k, bool fp8_cache) {
  const u32 column = fp8_cache ? lane / 4 * 2 + k / 2 : k / 2 * 8 + lane / 4;
  return columns * kSm90PieceColumns + column;
}

// The lane's part of a piece. Pieces of all rows follow each other, then those of other columns.
DEVICE f32x4* sm90_partial(f32* partial, u32 part, u32 tile_rows, u32 piece, u32 lane) {
  const i64 pieces = tile_rows / kSm90PieceRows * (kSm90Latent / kSm90PieceColumns);
  return reinterpret_cast<f32x4*>(partial) + (part * pieces + piece) * kWaveSize + lane;
}

// Of a row: the largest of its scores, in base 2, and the sum of the weights over 2^that.
DEVICE vector<f32, 2>* sm90_weights(f32* weights, u32 part, u32 tile_rows, u32 row) {
  return reinterpret_cast<vector<f32, 2>*>(weights) + (static_cast<i64>(part) * tile_rows + row);
}

}  // namespace jax_mla
