// SPDX-License-Identifier: Apache-2.0
// Numbers in memory, and as the matrix instructions take and give them.
#pragma once

#include "device.h"

using u8 = unsigned char;
using u16x8 = u16 __attribute__((ext_vector_type(8)));
using u32x4 = u32 __attribute__((ext_vector_type(4)));
using i16x4 = short __attribute__((ext_vector_type(4)));

constexpr i32 kWidth = 576, kLatent = 512;
constexpr i32 kLanes = 64, kWaves = 4;
constexpr i32 kTile = 16;  // rows, columns and tokens of a tile
constexpr i32 kRowTiles = ROWS / kTile, kTokenTiles = KV_BLOCK / kTile;
constexpr i32 kWaveColumns = kLatent / kWaves, kLaneColumns = kWaveColumns / kTile;
constexpr i32 kQBytes = Q_FP8 ? 1 : 2, kKvBytes = KV_FP8 ? 1 : 2;
constexpr i32 kChunk = 16 / kQBytes;            // numbers of 16 bytes of q
constexpr i32 kChunks = kWidth / (4 * kChunk);  // of a row, for each of four lanes

// The upper half of a float32 with ties away from zero: how bf16 is rounded. It has to be a
// function: clang 20 takes the bits of an element of a vector from the first element.
DEVICE u16 bf16_away(f32 x) { return (__builtin_bit_cast(u32, x) + 0x8000) >> 16; }

// A matrix instruction multiplies a tile by a tile. Lane l holds a piece of the left one's row, and
// of the right one's column, l % 16; and of the product's column l % 16 the rows from l / 16 * 4.
// Which part of the inner dimension a piece is may be chosen, the same on both sides.
#if Q_FP8
using Piece = i64;  // eight fp8
using Row = u64;    // of values, below
DEVICE f32x4 multiply(Piece left, Piece right, f32x4 sum) {
  return __builtin_amdgcn_mfma_f32_16x16x32_fp8_fp8(left, right, sum, 0, 0, 0);
}
#else
using Piece = i16x4;  // four bf16
using Row = u16x8;
DEVICE f32x4 multiply(Piece left, Piece right, f32x4 sum) {
  return __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(left, right, sum, 0, 0, 0);
}
#endif

// 16 bytes of q, and what they are multiplied with.
struct Chunk {
  Piece pieces[2];
};

DEVICE Chunk load(const u8* address) {
  return __builtin_bit_cast(Chunk, *reinterpret_cast<const u32x4*>(address));
}

// Eight fp8 as bf16.
DEVICE u16x8 widen(u64 bits) {
  u16x8 wide;
  for (i32 i = 0; i < 2; ++i) {
    const i32 word = static_cast<i32>(bits >> (32 * i));
    const auto low = __builtin_amdgcn_cvt_pk_f32_fp8(word, false);
    const auto high = __builtin_amdgcn_cvt_pk_f32_fp8(word, true);
    const f32 values[4] = {low[0], low[1], high[0], high[1]};
    for (i32 j = 0; j < 4; ++j) wide[4 * i + j] = __builtin_bit_cast(u32, values[j]) >> 16;
  }
  return wide;
}

// What a chunk of q is multiplied with, from a row of the pool.
DEVICE Chunk load_keys(const u8* row, i32 column) {
  if constexpr (kQBytes == kKvBytes) {
    return load(row + column * kKvBytes);
  } else {
    return __builtin_bit_cast(Chunk, widen(*reinterpret_cast<const u64*>(row + column)));
  }
}

// Tokens of a piece: with fp8, four each of two tiles.
constexpr i32 kPieceTiles = Q_FP8 ? 2 : 1, kPieceTokens = 4 * kPieceTiles;
constexpr i32 kPieces = kTokenTiles / kPieceTiles;  // of a block

// Weights of four tokens of each tile, between 0 and 1, as they are multiplied: rounded.
DEVICE Piece round(const f32x4 (&weights)[kPieceTiles]) {
#if Q_FP8
  u64 bits = 0;
  for (i32 i = 0; i < 2; ++i) {
    i32 word = __builtin_amdgcn_cvt_pk_fp8_f32(weights[i][0], weights[i][1], 0, false);
    word = __builtin_amdgcn_cvt_pk_fp8_f32(weights[i][2], weights[i][3], word, true);
    bits |= static_cast<u64>(static_cast<u32>(word)) << (32 * i);
  }
  return static_cast<Piece>(bits);
#else
  Piece piece;
  for (i32 i = 0; i < 4; ++i) piece[i] = bf16_away(weights[0][i]);
  return piece;
#endif
}

// The columns of values that a lane deals with, of one token.
DEVICE Row load_values(const u8* address) {
#if Q_FP8
  return *reinterpret_cast<const u64*>(address);
#elif KV_FP8
  return widen(*reinterpret_cast<const u64*>(address));
#else
  return *reinterpret_cast<const u16x8*>(address);
#endif
}

// kLaneColumns columns of as many tokens as a piece has: the j-th piece is that of column j.
struct Values {
  Piece columns[kLaneColumns];
};

#if Q_FP8
DEVICE Values transpose(const Row (&rows)[8]) {
  Values values;
  for (i32 j = 0; j < 8; ++j) {
    u64 bits = 0;
    for (i32 i = 0; i < 8; ++i) bits |= (rows[i] >> (8 * j) & 0xff) << (8 * i);
    values.columns[j] = __builtin_bit_cast(Piece, bits);
  }
  return values;
}
#else
DEVICE Values transpose(const Row (&rows)[4]) {
  Values values;
  for (i32 j = 0; j < 8; ++j) {
    const vector<u16, 4> column = {rows[0][j], rows[1][j], rows[2][j], rows[3][j]};
    values.columns[j] = __builtin_bit_cast(Piece, column);
  }
  return values;
}
#endif

DEVICE void store(f32* address, const f32 (&values)[kLaneColumns]) {
  for (i32 i = 0; i < kLaneColumns; i += 4) {
    const f32x4 four = {values[i], values[i + 1], values[i + 2], values[i + 3]};
    *reinterpret_cast<f32x4*>(address + i) = four;
  }
}

DEVICE void store(u16* address, const f32 (&values)[kLaneColumns]) {
  u16x8 bits;
  for (i32 i = 0; i < kLaneColumns; ++i) bits[i] = bf16_away(values[i]);
  *reinterpret_cast<u16x8*>(address) = bits;
}
