// SPDX-License-Identifier: Apache-2.0
// A row of q or of the cache on its way from memory to shared memory. kRowThreads neighbours take
// its pieces of 16 bytes in turn, so that together they read lines of 128 bytes.
#pragma once

#include "device.h"

namespace jax_mla {

constexpr u32 kRowThreads = 8;

// What one of them holds of a row of `width` elements.
template <typename Element, u32 width>
struct RowPieces {
  static constexpr u32 kElements = 16 / sizeof(Element);  // of a piece
  static constexpr u32 kPieces = width / kElements;       // of the row
  static constexpr u32 kHeld = (kPieces + kRowThreads - 1) / kRowThreads;
  static_assert(width % kElements == 0);
  u32x4 held[kHeld];
};

// Calls use(i, piece) for each piece of the row that the thread holds as number i.
template <typename Pieces, typename Use>
DEVICE void for_pieces(Use use) {
#pragma unroll
  for (u32 i = 0; i < Pieces::kHeld; ++i) {
    const u32 piece = i * kRowThreads + thread_id() % kRowThreads;
    if (Pieces::kPieces % kRowThreads == 0 || piece < Pieces::kPieces) use(i, piece);
  }
}

// Reads a row, if there is one.
template <typename Element, u32 width>
DEVICE void read_row(RowPieces<Element, width>& pieces, const Element* row) {
  using Pieces = RowPieces<Element, width>;
  if (row == nullptr) return;
  for_pieces<Pieces>([&](u32 i, u32 piece) {
    pieces.held[i] = *reinterpret_cast<const u32x4*>(row + piece * Pieces::kElements);
  });
}

// Exact: the upper half of the float32 that an 8-bit float makes is its bfloat16.
DEVICE vector<u16, 8> to_bf16_bits(u32 low, u32 high) {
  const auto x = __builtin_bit_cast(vector<u16, 8>, to_f32(__builtin_bit_cast(fp8x4, low)));
  const auto y = __builtin_bit_cast(vector<u16, 8>, to_f32(__builtin_bit_cast(fp8x4, high)));
  return __builtin_shufflevector(x, y, 1, 3, 5, 7, 9, 11, 13, 15);
}

// Writes a row to shared memory; fp8 becomes bfloat16.
template <typename To, typename Element, u32 width>
DEVICE void write_row(To* row, const RowPieces<Element, width>& pieces) {
  using Pieces = RowPieces<Element, width>;
  for_pieces<Pieces>([&](u32 i, u32 piece) {
    const u32x4 x = pieces.held[i];
    To* to = row + piece * Pieces::kElements;
    if constexpr (sizeof(Element) == sizeof(To)) {
      *reinterpret_cast<u32x4*>(to) = x;
    } else {
      *reinterpret_cast<vector<u16, 8>*>(to) = to_bf16_bits(x[0], x[1]);
      *reinterpret_cast<vector<u16, 8>*>(to + 8) = to_bf16_bits(x[2], x[3]);
    }
  });
}

}  // namespace jax_mla
