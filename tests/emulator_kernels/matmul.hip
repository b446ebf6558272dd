// SPDX-License-Identifier: Apache-2.0
// A tile matmul, staged through LDS and multiplied by the matrix cores; c = a b^T, 64 x 64 a block.
#include "matrix.h"

#ifdef WITHOUT_FENCES
// What looks like a barrier and waits for nothing: the mistake that the emulator must report.
DEVICE void stage_sync() { __builtin_amdgcn_s_barrier(); }
#else
DEVICE void stage_sync() { block_sync(); }
#endif

// Four waves; each holds 16 rows of the tile. A step takes `depth` columns of a and b, which lie
// in LDS as `words` words a row, each a lane's share for one instruction.
template <int depth, class Word, class Element, class Multiply>
DEVICE void matmul(const Element *a, const Element *b, f32 *c, u32 n, u32 k, Word *a_tile,
                   Word *b_tile, Multiply multiply) {
  constexpr u32 width = sizeof(Word) / sizeof(Element), words = depth / width;
  u32 lane = thread_id() % 64, wave = thread_id() / 64;
  u32 row0 = block_id() / (n / 64) * 64, column0 = block_id() % (n / 64) * 64;
  f32x4 sums[4] = {};
  for (u32 step = 0; step < k; step += depth) {
    for (u32 i = thread_id(); i < 64 * words; i += 256) {
      u32 row = i / words, from = step + i % words * width;
      a_tile[i] = *(const Word *)(a + (row0 + row) * k + from);
      b_tile[i] = *(const Word *)(b + (column0 + row) * k + from);
    }
    stage_sync();
    for (u32 column = 0; column < 4; column++)
      sums[column] = multiply(a_tile[(16 * wave + lane % 16) * words + lane / 16],
                              b_tile[(16 * column + lane % 16) * words + lane / 16], sums[column]);
    stage_sync();
  }
  for (u32 column = 0; column < 4; column++)
    for (u32 i = 0; i < 4; i++)
      c[(row0 + 16 * wave + 4 * (lane / 16) + i) * n + column0 + 16 * column + lane % 16] =
          sums[column][i];
}

KERNEL(256) matmul_bf16(const short *a, const short *b, f32 *c, u32 n, u32 k) {
  SHARED bf16x4 a_tile[64 * 4], b_tile[64 * 4];
  matmul<16>(a, b, c, n, k, a_tile, b_tile, [](bf16x4 x, bf16x4 y, f32x4 z) {
    return __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(x, y, z, 0, 0, 0);
  });
}

KERNEL(256) matmul_fp8(const u8 *a, const u8 *b, f32 *c, u32 n, u32 k) {
  SHARED i64 a_tile[64 * 4], b_tile[64 * 4];
  matmul<32>(a, b, c, n, k, a_tile, b_tile, [](i64 x, i64 y, f32x4 z) {
    return __builtin_amdgcn_mfma_f32_16x16x32_fp8_fp8(x, y, z, 0, 0, 0);
  });
}
